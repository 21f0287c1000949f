"""Defines `latentcli sync`, which drops from a store what its sources no longer give."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from latentcli.cli import words
from latentcli.cli.command import command
from latentcli.cli.output import Output
from latentcli.jobs.config import SyncJob
from latentcli.jobs.runtime.process import loading


@command(SyncJob)
def sync(out: Output, job: SyncJob, given: frozenset[str]) -> None:
    """Drop deleted inputs from a store and rename moved ones, without encoding.

    Renamed inputs keep their latents under the new name, and captions are read again. Neither
    the model nor a GPU is needed.
    """
    with out.reporter() as reporter:
        with loading():
            from latentcli.jobs.encode.sync import run_sync

        document = run_sync(job, reporter)
    out.show(document, summary=summary)


def summary(document: Mapping[str, Any]) -> Iterable[str]:
    """What was done, and what is left for encode."""
    done = "Would drop" if document["dry_run"] else "Dropped"
    yield (
        f"{done} {words.count(document['dropped'], 'input')};"
        f" {words.count(document['renamed'], 'input')} with another name."
    )
    yield from (f"  {source}" for source in document["dropped_sources"])
    if document["dropped"] > len(document["dropped_sources"]):
        yield "  ..."
    if document["rewritten"] or document["deleted"]:
        yield (
            f"{words.count(document['rewritten'], 'shard')} rewritten,"
            f" {words.count(document['deleted'], 'shard')} deleted."
        )
    if document["moved"]:
        yield "The inputs have moved to another place; they are the same ones."
    if document["copied"]:
        yield (
            "Their times have changed, as after a copy, so only their sizes were compared. encode"
            " --compare digest also finds inputs that were edited."
        )
    if document["texts"]:
        yield f"Captions or fields have changed in {words.count(document['texts'], 'shard')}."
    left = [f"{document[name]:,} {name}" for name in ("new", "changed") if document[name]]
    if left:
        yield f"Inputs to encode: {' and '.join(left)}."
    if document["unfinished"]:
        yield (
            f"{words.count(document['unfinished'], 'shard')} still to be encoded: run the encode"
            " command again."
        )
