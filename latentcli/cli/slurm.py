"""Defines `latentcli slurm`, which prints a script for Slurm's sbatch."""

from __future__ import annotations

from collections.abc import Sequence

import typer
from typer.main import get_command

from latentcli.cli.command import command
from latentcli.cli.encode import encode
from latentcli.cli.jobfile import resolve
from latentcli.cli.output import Output
from latentcli.core.errors import UsageError
from latentcli.jobs.cluster.slurm_script import SlurmJob, script
from latentcli.jobs.config import EncodeJob

EXAMPLE = "latentcli slurm --gpus-per-node 8 -- encode SRC -o OUT --model full_capacitor"


@command(SlurmJob, reports=False)
def slurm(out: Output, job: SlurmJob, given: frozenset[str]) -> None:
    """Print an sbatch script that runs an encode job, with one process per GPU.

    At the time limit the job finishes its batches and requeues itself.
    """
    check_words(job.words)
    out.stdout.out(script(job), end="", highlight=False)


def check_words(words: Sequence[str]) -> None:
    """UsageError where the words are no encode job that several processes can share."""
    if not words:
        raise UsageError(f"Give the command after two dashes, such as: {EXAMPLE}")
    if words[0] != "encode":
        raise UsageError(f"latentcli slurm runs encode, not {words[0]!r}; give it as in: {EXAMPLE}")
    app = typer.Typer()
    app.command()(encode)
    with get_command(app).make_context("latentcli encode", list(words[1:])) as context:
        job, given = resolve(EncodeJob, "encode", context.params)
    if "devices" in given or "engine" in given:
        raise UsageError(
            "Leave --devices and --engine out: Slurm starts one process per GPU already."
        )
    if "output" not in given or job.output == "-":
        raise UsageError(
            "Name the store with -o, as a folder or URL that all machines reach: the command must"
            " find it again when the job resumes."
        )
    if "-" in job.sources:
        raise UsageError("A Slurm job has no stdin to read; give folders, files or URLs.")
