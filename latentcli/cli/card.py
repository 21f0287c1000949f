"""Defines `latentcli card`, which writes a dataset card for the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from latentcli.cli import words
from latentcli.cli.command import command
from latentcli.cli.output import Output
from latentcli.jobs.runtime.process import loading
from latentcli.jobs.store.config import UNKNOWN, CardJob


@command(CardJob)
def card(out: Output, job: CardJob, given: frozenset[str]) -> None:
    """Write a dataset card for the Hugging Face Hub into a store.

    The card describes the model, the inputs, the statistics and how to load the latents, and shows
    some latents as colour images. It has no images of the inputs, and no paths of this machine.
    """
    with out.reporter() as reporter:
        with loading():
            from latentcli.jobs.store.card import run_card

        document = run_card(job, reporter)
    if document["path"] is None and not out.as_json:
        out.stdout.out(document["card"], end="", highlight=False)
        return
    out.show(document, summary=summary)


def summary(document: Mapping[str, Any]) -> Iterable[str]:
    """Where the card is, and what a person has to add."""
    if document["path"] is None:
        return
    yield f"Card: {document['path']}, with {words.count(document['pictures'], 'picture')}."
    if document["license"] == UNKNOWN:
        yield "Its licence is not filled in: give --license, or set it in the file."
