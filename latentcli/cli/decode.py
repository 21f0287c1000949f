"""Defines `latentcli decode`, which makes pictures of a latent store."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from latentcli.cli import words
from latentcli.cli.command import command
from latentcli.cli.devices import run_on_devices
from latentcli.cli.output import Output
from latentcli.jobs.cluster.environment import rank_of
from latentcli.jobs.config import DecodeJob, check_decode_pipe
from latentcli.jobs.runtime.failures import check_failed
from latentcli.jobs.runtime.process import loading
from latentcli.jobs.runtime.stdio import check_stdin, reserved_stdout


@command(
    DecodeJob,
    examples=(
        "decode photos.latents -o photos.decoded",
        "decode photos.latents --format webp --quality 90 --skip-existing",
        "decode cache/photo_flux.safetensors -m flux2 -o photos.decoded",
    ),
)
def decode(out: Output, job: DecodeJob, given: frozenset[str]) -> None:
    """Decode a latent store, or a file of latents, into images or clips."""
    out.stdout_is_taken = job.output == "-"
    check_decode_pipe(job)
    if job.store == "-":
        check_stdin()
    run_on_devices(out, job.devices, job.device)
    leads = rank_of(os.environ).leader
    with reserved_stdout(out.stdout_is_taken), out.reporter(job, "decode", leads=leads) as reporter:
        with loading():
            from latentcli.jobs.decode.job import run_decode

        document = run_decode(job, reporter)
    if not document:  # another process of this job has it
        return
    out.show(document, summary=summary)
    refuse(document, job.max_bad)


def refuse(document: Mapping[str, Any], max_bad: str | None) -> None:
    """TooManyFailures where more failed, or is missing from the store, than --max-bad allows.

    Latents that are missing give no picture either: a script must not take a part for the whole.
    """
    failed, missing = document["failed"], document["missing"]
    inputs = document["decoded"] + document["skipped"] + failed + missing
    what = " or ".join(["failed"] * bool(failed) + ["are missing from the store"] * bool(missing))
    check_failed(failed + missing, inputs, max_bad, what=what, advice=document["advice"] or "")


def summary(document: Mapping[str, Any]) -> Iterable[str]:
    """What was done and where the pictures are."""
    yield words.outcome("decoded", document)
    what = "Clips" if document.get("media") == "clips" else "Pictures"
    piped = document["output"] == "-"
    yield f"{what}: {'a tar stream on standard output' if piped else document['output']}"
    if document["decoded"]:
        yield from words.slowest(document)
    yield from words.failures(document)
    if document["missing"]:
        yield f"{words.count(document['missing'], 'input')} missing from the store."
