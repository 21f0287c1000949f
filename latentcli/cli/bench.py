"""`latentcli bench`: models and sizes in, milliseconds, images a second and memory out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import typer

from latentcli.cli import check_options as c
from latentcli.cli import options as o
from latentcli.cli import words
from latentcli.cli.jobfile import resolve
from latentcli.cli.output import output_of, say_bundled
from latentcli.core.errors import LatentCliError
from latentcli.jobs.config import BenchJob

if TYPE_CHECKING:
    from rich.console import RenderableType


def bench(
    context: typer.Context,
    sources: o.BenchSources = None,
    config: o.Config = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
    op: c.Op = None,
    resolution: c.Resolution = None,
    batch: c.BenchBatch = None,
    preset_table: c.PresetTable = None,
    baseline: o.Baseline = None,
    warmup: c.Warmup = None,
    repeats: c.Repeats = None,
    seconds: c.Seconds = None,
    threads: c.Threads = None,
    random_weights: c.RandomWeights = None,
    compile: c.Compile = None,
    chart: c.Chart = None,
    stages: c.Stages = None,
    workers: o.Workers = None,
    size: o.Size = None,
    batch_size: o.BatchSize = None,
    models: o.Models = None,
    weights: o.Weights = None,
    revision: o.Revision = None,
    device: o.Device = None,
    dtype: o.Dtype = None,
    steps: o.Steps = None,
) -> None:
    """Time encode and decode of models, or with --stages each stage of a whole encode job."""
    out = output_of(context)
    needs = "sources" if stages else None
    job, given = resolve(BenchJob, "bench", context.params, needs=needs)
    say_bundled(out, given)
    from latentcli.jobs.bench.job import run_bench

    with out.reporter() as reporter:
        document = run_bench(job, reporter)
    out.show(document, data=tables, summary=words.slowest)
    if "chart_error" in document:
        raise LatentCliError(document["chart_error"])


def tables(document: Mapping[str, Any]) -> Iterable[RenderableType]:
    """The rows, or the stages."""
    from latentcli.reports.bench_tables import bench_tables, stages_tables

    yield from (stages_tables if "stages" in document else bench_tables)(document)
