"""Runs `latentcli plan`: says what encode would do with the same words, and why."""

from __future__ import annotations

from dataclasses import replace

from latentcli.cli.command import command
from latentcli.cli.encode import run
from latentcli.cli.output import Output
from latentcli.jobs.config import EncodeJob


@command(EncodeJob, "encode")
def plan(out: Output, job: EncodeJob, given: frozenset[str]) -> None:
    """Say what encode would do with the same options, why, and how long it would take.

    Nothing is written. A few inputs are encoded to measure the time.
    """
    run(out, replace(job, dry_run=True), given)
