"""`latentcli inspect`: a store in, what it holds and how it was made out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from latentcli.cli import options as o
from latentcli.cli import words
from latentcli.cli.jobfile import NEEDED
from latentcli.cli.output import output_of
from latentcli.cli.setting import plain
from latentcli.core.errors import UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType

Report = Annotated[
    str | None,
    plain(
        "report",
        "Write a page with the latents' figures and pictures into this folder; an earlier report"
        " there is replaced.",
        metavar="DIR",
    ),
]
ReportSamples = Annotated[
    int | None,
    plain(
        "report_samples",
        "Samples to read for it, evenly over the store; 0 reads all. Default: 2000, or all where"
        " the store does not hold its own means.",
        metavar="N",
    ),
]
SHOWN = 5
"""Findings that are told beside the page."""


def inspect(
    context: typer.Context,
    store: o.Store = None,
    report: Report = None,
    report_samples: ReportSamples = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Describe a latent store: model, latent space, totals, statistics, failures."""
    if store is None:
        raise UsageError(NEEDED["store"])
    from latentcli.jobs.store.inspect import inspect_store

    out = output_of(context)
    with out.reporter() as reporter:
        document = inspect_store(store, report, report_samples, reporter)
    out.show(document, data=tables, summary=told)


def tables(document: Mapping[str, Any]) -> Iterable[RenderableType]:
    """One line per fact, then what failed."""
    from latentcli.reports.tables import store_tables

    yield from store_tables(document)


def told(document: Mapping[str, Any]) -> Iterable[str]:
    """What stands out in the figures of a report, and where its page is."""
    report = document.get("report")
    if report is None:
        return
    found = report["findings"]
    yield from (item["text"] for item in found[:SHOWN])
    if len(found) > SHOWN:
        yield f"And {words.count(len(found) - SHOWN, 'more thing')} that the page tells."
    yield f"Report: {report['path']}"
