"""Runs `latentcli plan`: says what encode would do with the same arguments, and why."""

from __future__ import annotations

from dataclasses import replace

from latentcli.cli.command import command
from latentcli.cli.encode import run
from latentcli.cli.output import Output
from latentcli.jobs.config import EncodeJob


@command(EncodeJob, "encode")
def plan(out: Output, job: EncodeJob, given: frozenset[str]) -> None:
    """Show what encode would do with the same options, and how long it would take.

    It also says why. Nothing is written; a few inputs are encoded to measure the time.
    """
    run(out, replace(job, dry_run=True), given)
