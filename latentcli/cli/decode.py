"""`latentcli decode`: a latent store in, pictures out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import typer

from latentcli.cli import options as o
from latentcli.cli import words
from latentcli.cli.jobfile import resolve
from latentcli.cli.output import check_failed, output_of
from latentcli.jobs.config import DecodeJob
from latentcli.jobs.runtime.stdio import check_stdin, reserved_stdout


def decode(
    context: typer.Context,
    store: o.StoreOrFile = None,
    output: o.OutputFolder = None,
    config: o.Config = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
    workers: o.WriterThreads = None,
    batch_size: o.BatchSize = None,
    model: o.StoreModel = None,
    weights: o.Weights = None,
    revision: o.Revision = None,
    device: o.Device = None,
    dtype: o.Dtype = None,
    force: o.Force = None,
    latents: o.FileLatents = None,
    steps: o.Steps = None,
    sampler: o.Sampler = None,
    schedule: o.Schedule = None,
    pdg: o.Pdg = None,
    pdg_strength: o.PdgStrength = None,
    seed: o.Seed = None,
    num_frames: o.NumFrames = None,
    format: o.Format = None,
    quality: o.Quality = None,
    skip_existing: o.SkipExisting = None,
) -> None:
    """Decode a latent store, or a file of latents, into pictures or clips."""
    out = output_of(context)
    job, _ = resolve(DecodeJob, "decode", context.params, needs="store")
    out.stdout_is_taken = job.output == "-"
    if job.store == "-":
        check_stdin()
    with reserved_stdout(out.stdout_is_taken), out.reporter() as reporter:
        from latentcli.jobs.decode.job import run_decode

        document = run_decode(job, reporter)
    out.show(document, summary=summary)
    check_failed(document["failed"], document["decoded"] + document["failed"], "0")


def summary(document: Mapping[str, Any]) -> Iterable[str]:
    """What was done and where the pictures are."""
    yield words.outcome("decoded", document)
    what = "Clips" if document.get("media") == "clips" else "Pictures"
    piped = document["output"] == "-"
    yield f"{what}: {'a tar stream on standard output' if piped else document['output']}"
    yield from words.slowest(document)
    yield from words.failures(document)
