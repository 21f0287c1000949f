"""Defines `latentcli roundtrip`, which measures how well models give images back."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from latentcli.cli import words
from latentcli.cli.command import command
from latentcli.cli.output import Output, say_bundled
from latentcli.core.byte_size import byte_words
from latentcli.core.errors import StoreError
from latentcli.jobs.cluster.environment import refuse_ranks
from latentcli.jobs.config import RoundtripJob
from latentcli.jobs.runtime.failures import check_failed
from latentcli.jobs.runtime.given_names import check_sides
from latentcli.jobs.runtime.process import loading


@command(RoundtripJob)
def roundtrip(out: Output, job: RoundtripJob, given: frozenset[str]) -> None:
    """Encode and decode images or clips in memory, and measure the differences."""
    refuse_ranks("roundtrip", os.environ)
    for text in job.models:
        check_sides(job.size, text.partition("=")[0])
    say_bundled(out, given)
    with out.reporter(job, "roundtrip") as reporter:
        with loading():
            from latentcli.jobs.loader.fork_server import begin_here
            from latentcli.jobs.roundtrip.job import run_roundtrip
            from latentcli.reports.roundtrip_tables import roundtrip_tables

        if job.workers != 0:
            begin_here()
        document = run_roundtrip(job, reporter)
    out.show(document, data=roundtrip_tables, summary=summary)
    refuse(document, job.max_bad)


def refuse(document: Mapping[str, Any], max_bad: str | None) -> None:
    """StoreError for files that could not be written, TooManyFailures for too many bad inputs."""
    if document["problems"]:
        raise StoreError(" ".join(document["problems"]))
    # A clip fails as a whole, so clips are counted and not their frames.
    sound = document["images"] if document["clips"] is None else document["clips"]
    check_failed(document["failed"], sound + document["failed"], max_bad)


def page(document: Mapping[str, Any]) -> Iterable[str]:
    """Where the page is, and how large with its pictures."""
    if not document.get("page"):
        return
    small = document["page_thumbnails"]
    more = f"; {words.count(small, 'picture')} as thumbnails only" if small else ""
    yield f"Page: {document['page']} ({byte_words(document['page_bytes'])}{more})"


def summary(document: Mapping[str, Any]) -> Iterable[str]:
    """Where the files are, and what failed."""
    for name, key in {"Pictures": "saved", "Figures of each image": "csv"}.items():
        if document.get(key):
            yield f"{name}: {document[key]}"
    yield from page(document)
    yield from words.failures(document)
    yield from words.filtered(document)
    yield from words.left_out(document)
