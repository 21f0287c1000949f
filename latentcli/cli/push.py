"""Defines `latentcli push`, which uploads a store to the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from latentcli.cli import words
from latentcli.cli.command import command
from latentcli.cli.output import Output
from latentcli.core.byte_size import byte_words
from latentcli.jobs.runtime.process import loading
from latentcli.jobs.store.config import PushJob


@command(PushJob)
def push(out: Output, job: PushJob, given: frozenset[str]) -> None:
    """Upload a store to a dataset repository of the Hugging Face Hub.

    Only what is missing there is uploaded, so the same command resumes after an interruption. The
    paths of the inputs on this machine are not uploaded.
    """
    with out.reporter() as reporter:
        with loading():
            from latentcli.jobs.store.push import run_push

        document = run_push(job, reporter)
    out.show(document, summary=summary)


def summary(document: Mapping[str, Any]) -> Iterable[str]:
    """What was sent, and how it is read."""
    files = words.count(document["uploaded"], "file")
    if document["commit"] is None:
        yield f"{document['repo']} is up to date: {document['url']}"
    else:
        gone = (
            f"; {words.count(document['deleted'], 'file')} deleted" if document["deleted"] else ""
        )
        yield (
            f"Pushed {files} ({byte_words(document['bytes'])}) in"
            f" {words.count(document['commits'], 'commit')}{gone}: {document['url']}"
        )
    yield f'Read it with latentcli.open_store("{document["open"]}").'
