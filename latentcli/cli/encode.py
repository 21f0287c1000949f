"""`latentcli encode`: images in, a latent store out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import typer

from latentcli.cli import options as o
from latentcli.cli import words
from latentcli.cli.jobfile import resolve
from latentcli.cli.output import check_failed, output_of, say_bundled
from latentcli.jobs.config import EncodeJob


def encode(
    context: typer.Context,
    sources: o.Sources = None,
    output: o.OutputStore = None,
    config: o.Config = None,
    dry_run: o.DryRun = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
    media: o.Media = None,
    workers: o.Workers = None,
    on_error: o.OnError = None,
    max_bad: o.MaxBad = None,
    retry: o.Retry = None,
    alpha: o.Alpha = None,
    max_pixels: o.MaxPixels = None,
    stride: o.Stride = None,
    frames: o.Frames = None,
    size: o.Size = None,
    resize: o.Resize = None,
    filter: o.Filter = None,
    batch_size: o.BatchSize = None,
    model: o.Model = None,
    weights: o.Weights = None,
    revision: o.Revision = None,
    device: o.Device = None,
    dtype: o.Dtype = None,
    latents: o.Latents = None,
    sample: o.Sample = None,
    class_token: o.ClassToken = None,
    self_check: o.SelfCheck = None,
    samples_per_shard: o.SamplesPerShard = None,
) -> None:
    """Encode images or clips into a latent store.

    The same command run again finishes what is missing and nothing else.
    """
    out = output_of(context)
    job, given = resolve(EncodeJob, "encode", context.params, needs="sources")
    say_bundled(out, given)
    from latentcli.jobs.encode import run_encode

    with out.talk() as talk:
        document = run_encode(job, talk)
    if job.dry_run:
        out.show(document, data=plan)
        return
    out.show(document, talk=summary)
    check_failed(document["failed"], document["inputs"], job.max_bad)


def plan(document: Mapping[str, Any]) -> Iterable[str]:
    """What a dry run found out."""
    noun = "clip" if document.get("media") == "clips" else "image"
    yield f"Would encode {words.count(document['to_encode'], noun)} with {document['model']}."
    if document["already_encoded"]:
        yield f"{words.count(document['already_encoded'], noun)} are encoded already."
    size = document["bytes"]
    about = f", about {words.size(size)}" if size is not None else ""
    yield f"Store: {document['store']} ({words.count(document['shards'], 'shard')} to write{about})"


def summary(document: Mapping[str, Any]) -> Iterable[str]:
    """What was done, where it is, what failed and what to do next."""
    store = document["store"]
    yield words.outcome("encoded", document)
    yield (
        f"Store: {store} ({words.count(document['shards'], 'shard')},"
        f" {words.size(document['bytes'])}, {document['geometry']}, {document['latent_space']})"
    )
    yield from words.slowest(document)
    yield from words.failures(document)
    yield "Next:"
    yield f"  {words.command('decode', store)}"
    yield f"  {words.command('inspect', store)}"
