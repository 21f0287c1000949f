"""Defines `latentcli inspect`, which describes what a store holds and how it was made."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from latentcli.cli import words
from latentcli.cli.command import command
from latentcli.cli.output import Output
from latentcli.core.errors import IncompleteStore
from latentcli.jobs.cluster.environment import refuse_ranks
from latentcli.jobs.runtime.process import loading
from latentcli.jobs.store.config import InspectJob

SHOWN = 5
"""Findings that are printed beside the page."""


@command(InspectJob)
def inspect(out: Output, job: InspectJob, given: frozenset[str]) -> None:
    """Describe a latent store: model, latent space, totals, statistics, failures."""
    if job.report is not None:
        refuse_ranks("inspect --report", os.environ)
    with out.reporter() as reporter:
        with loading():
            from latentcli.jobs.store.inspect import inspect_store
            from latentcli.reports.tables import store_tables

        document = inspect_store(job.store, job.report, job.report_samples, reporter)
    out.show(document, data=store_tables, summary=summary)
    if document["advice"]:
        raise IncompleteStore(
            f"{job.store} is not complete ({document['incomplete']}). {document['advice']}"
        )


def summary(document: Mapping[str, Any]) -> Iterable[str]:
    """What stands out in the figures of a report, and where its page is."""
    report = document.get("report")
    if report is None:
        return
    found = report["findings"]
    yield from (item["text"] for item in found[:SHOWN])
    if len(found) > SHOWN:
        yield f"{words.count(len(found) - SHOWN, 'more finding')} on the page."
    yield f"Report: {report['path']}"
