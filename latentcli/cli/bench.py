"""Defines `latentcli bench`, which times models, and the stages of an encode job."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from latentcli.cli import words
from latentcli.cli.command import command
from latentcli.cli.jobfile import missing
from latentcli.cli.output import Output, say_bundled
from latentcli.core.errors import LatentCliError, UsageError
from latentcli.jobs.bench.config import BenchJob
from latentcli.jobs.settings import NO_SOURCES

if TYPE_CHECKING:
    from rich.console import RenderableType


@command(BenchJob)
def bench(out: Output, job: BenchJob, given: frozenset[str]) -> None:
    """Time encode and decode of models, or with --stages each stage of a whole encode job."""
    if job.stages and not job.sources:
        raise UsageError(missing(NO_SOURCES, "bench"))
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
