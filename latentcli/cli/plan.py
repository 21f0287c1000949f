"""`latentcli plan`: the same words as encode in; what that would do, and why, out."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import typer

from latentcli.cli.encode import encode, run
from latentcli.cli.jobfile import resolve
from latentcli.cli.output import output_of
from latentcli.jobs.config import EncodeJob


# Typer reads the options off the function that is wrapped, so both commands always have the same.
@functools.wraps(encode)
def plan(context: typer.Context, **_: Any) -> None:
    """Say what encode would do with the same words, and why; nothing is written."""
    job, given = resolve(EncodeJob, "encode", context.params, needs="sources")
    run(output_of(context), replace(job, dry_run=True), given)


plan.__name__ = "plan"
plan.__doc__ = """Say what encode would do with the same options, why, and how long it would take.

Nothing is written. A few inputs are encoded to measure the time.
"""
