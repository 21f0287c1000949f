"""Defines `latentcli decode`, which makes pictures of a latent store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from latentcli.cli import words
from latentcli.cli.command import command
from latentcli.cli.output import Output
from latentcli.jobs.config import DecodeJob
from latentcli.jobs.failures import check_failed
from latentcli.jobs.runtime.stdio import check_stdin, reserved_stdout


@command(DecodeJob)
def decode(out: Output, job: DecodeJob, given: frozenset[str]) -> None:
    """Decode a latent store, or a file of latents, into pictures or clips."""
    out.stdout_is_taken = job.output == "-"
    if job.store == "-":
        check_stdin()
    with reserved_stdout(out.stdout_is_taken), out.reporter() as reporter:
        from latentcli.jobs.decode.job import run_decode

        document = run_decode(job, reporter)
    out.show(document, summary=summary)
    inputs = document["decoded"] + document["skipped"] + document["failed"]
    check_failed(document["failed"], inputs, job.max_bad)


def summary(document: Mapping[str, Any]) -> Iterable[str]:
    """What was done and where the pictures are."""
    yield words.outcome("decoded", document)
    what = "Clips" if document.get("media") == "clips" else "Pictures"
    piped = document["output"] == "-"
    yield f"{what}: {'a tar stream on standard output' if piped else document['output']}"
    if document["decoded"]:
        yield from words.slowest(document)
    yield from words.failures(document)
