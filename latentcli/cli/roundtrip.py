"""`latentcli roundtrip`: images in, how well each model gives them back out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import typer

from latentcli.cli import options as o
from latentcli.cli import roundtrip_options as r
from latentcli.cli import words
from latentcli.cli.jobfile import resolve
from latentcli.cli.output import check_failed, output_of, say_bundled
from latentcli.core.errors import StoreError
from latentcli.jobs.config import RoundtripJob

if TYPE_CHECKING:
    from rich.console import RenderableType

NAMED = 8
"""Failed inputs that the summary names."""


def roundtrip(
    context: typer.Context,
    sources: o.Sources = None,
    save: r.Save = None,
    csv: r.Csv = None,
    report: r.Report = None,
    difference_gain: r.DifferenceGain = None,
    config: o.Config = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
    media: o.Media = None,
    workers: o.Workers = None,
    on_error: o.OnError = None,
    max_bad: o.MaxBad = None,
    time_limit: o.TimeLimit = None,
    alpha: o.Alpha = None,
    max_pixels: o.MaxPixels = None,
    stride: o.Stride = None,
    frames: o.Frames = None,
    size: o.Size = None,
    resize: o.Resize = None,
    filter: o.Filter = None,
    area: o.Area = None,
    bucket_rule: o.BucketRule = None,
    bucket_step: o.BucketStep = None,
    bucket_min: o.BucketMin = None,
    bucket_max: o.BucketMax = None,
    no_upscale: o.NoUpscale = None,
    buckets: o.BucketFile = None,
    batch_size: o.BatchSize = None,
    models: r.Models = None,
    baseline: r.Baseline = None,
    decoders: o.Decoders = None,
    weights: o.Weights = None,
    revision: o.Revision = None,
    device: o.Device = None,
    dtype: o.Dtype = None,
    metrics: r.Metrics = None,
    metric_weights: r.MetricWeights = None,
    steps: o.Steps = None,
    sampler: o.Sampler = None,
    schedule: o.Schedule = None,
    pdg: o.Pdg = None,
    pdg_strength: o.PdgStrength = None,
    seed: o.Seed = None,
    num_frames: o.NumFrames = None,
) -> None:
    """Encode and decode images or clips in memory, and measure how well they come back."""
    out = output_of(context)
    job, given = resolve(RoundtripJob, "roundtrip", context.params, needs="sources")
    say_bundled(out, given)
    from latentcli.jobs.roundtrip.job import run_roundtrip

    with out.reporter() as reporter:
        document = run_roundtrip(job, reporter)
    out.show(document, data=tables, summary=summary)
    refuse(document, job.max_bad)


def refuse(document: Mapping[str, Any], max_bad: str | None) -> None:
    """StoreError for files that could not be written, TooManyFailures for too many bad inputs."""
    if document["problems"]:
        raise StoreError(" ".join(document["problems"]))
    # A clip fails as a whole, so clips are counted and not their frames.
    sound = document["images"] if document["clips"] is None else document["clips"]
    check_failed(document["failed"], sound + document["failed"], max_bad)


def tables(document: Mapping[str, Any]) -> Iterable[RenderableType]:
    """One row per model, how far the others are from the first one, and the images at the ends."""
    from latentcli.reports.roundtrip_tables import roundtrip_tables

    yield from roundtrip_tables(document)


def summary(document: Mapping[str, Any]) -> Iterable[str]:
    """Where the files are, and what failed."""
    for name, key in {"Pictures": "saved", "Figures of each image": "csv", "Page": "page"}.items():
        if document.get(key):
            yield f"{name}: {document[key]}"
    yield from failures(document)


def failures(document: Mapping[str, Any]) -> Iterator[str]:
    """Which inputs failed and why; no other file of this command tells it."""
    told = document["failures"]
    if told:
        yield f"{words.count(len(told), 'input')} failed:"
    for failure in told[:NAMED]:
        yield f"  {failure['key']}: {failure['error']}"
    if len(told) > NAMED:
        yield f"  and {len(told) - NAMED:,} more; --json and --report have them all"
