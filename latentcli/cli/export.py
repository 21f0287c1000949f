"""Defines `latentcli export`, which writes a store's latents as trainers read them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from latentcli.cli import words
from latentcli.cli.command import command
from latentcli.cli.output import Output
from latentcli.jobs.export.options import ExportJob, check_format
from latentcli.jobs.runtime.process import loading


@command(ExportJob)
def export(out: Output, job: ExportJob, given: frozenset[str]) -> None:
    """Write the latents of a store in the format of a trainer.

    What the trainer cannot use is refused before anything is written: latents of another space, or
    of sizes that it would not compute. With --check an export is compared with its store.
    """
    check_format(job)
    with out.reporter(job, "export") as reporter:
        with loading():
            from latentcli.jobs.export.job import run_export
            from latentcli.jobs.loader.fork_server import begin_here

        begin_here()
        document = run_export(job, reporter)
    out.show(document, summary=summary if job.check is None else checked)


def summary(document: Mapping[str, Any]) -> Iterable[str]:
    """What was written, in which state, and what is left to do."""
    yield (
        f"Exported {words.count(document['samples'], 'latent')} to {document['output']}:"
        f" {document['format']}, {document['arch']}, {document['latent_space']},"
        f" {document['dtype']}."
    )
    if document["steps_done_before"]:
        before, steps = document["steps_done_before"], document["steps"]
        yield f"{before:,} of {steps:,} steps were done before."
    yield from document["warnings"]
    yield from document["advice"]


def checked(document: Mapping[str, Any]) -> Iterable[str]:
    """What was compared."""
    yield (
        f"{document['output']} matches {document['store']}:"
        f" {words.count(document['samples'], 'latent')}, {document['format']},"
        f" {document['latent_space']}."
    )
