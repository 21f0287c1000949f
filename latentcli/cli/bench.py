"""Defines `latentcli bench`, which times models, and the stages of an encode job."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from latentcli.cli import words
from latentcli.cli.command import command
from latentcli.cli.jobfile import missing
from latentcli.cli.output import Output, say_bundled
from latentcli.core.errors import LatentCliError, UsageError
from latentcli.jobs.bench.config import BenchJob, refuse_other_form
from latentcli.jobs.cluster.environment import refuse_ranks
from latentcli.jobs.runtime.given_names import check_source
from latentcli.jobs.runtime.process import loading
from latentcli.jobs.settings.images import NO_SOURCES


@command(BenchJob)
def bench(out: Output, job: BenchJob, given: frozenset[str]) -> None:
    """Time the encode and decode of models, or the stages of an encode job."""
    refuse_ranks("bench", os.environ)
    refuse_other_form(job)
    if job.stages and not job.sources:
        raise UsageError(missing(NO_SOURCES, "bench"))
    for source in job.sources if job.stages else ():
        check_source(source)
    say_bundled(out, given)
    with out.reporter(job, "bench") as reporter:
        with loading():
            from latentcli.jobs.bench.job import run_bench
            from latentcli.reports.bench_tables import bench_tables, stages_tables

        document = run_bench(job, reporter)
    tables = stages_tables if job.stages else bench_tables
    out.show(document, data=tables, summary=summary)
    failed = [document[name] for name in ("chart_error", "report_error") if name in document]
    if failed:
        raise LatentCliError(" ".join(failed))


def summary(document: Mapping[str, Any]) -> Iterable[str]:
    """What limits a job, and where the page is."""
    yield from words.slowest(document)
    if "page" in document:
        yield f"Page: {document['page']}"
