"""Says in words what became of the captions of a job."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from latentcli.cli import words

REFUSED = {
    "empty": "empty",
    "not_utf8": "not UTF-8",
    "too_long": "too long",
    "broken": "broken",
    "unreadable": "not readable",
    "unused_rows": "rows of metadata without a picture",
}
"""What was not taken, by its count in the document."""


def caption_lines(document: Mapping[str, Any]) -> Iterator[str]:
    """How many samples have a caption, and what was not taken; nothing where there are no texts."""
    counts = document.get("captions")
    if counts is None:
        return
    refused = [kind for kind in REFUSED if counts[kind]]
    if not counts["with_caption"] and not refused:
        return
    noun = "clip" if document.get("media") == "clips" else "image"
    # A run that had no texts to read says nothing of those that the store has.
    number = counts["with_caption"]
    if number or document.get("encoded"):
        yield f"Captions: {words.count(number, noun)} {'has' if number == 1 else 'have'} one."
    if refused:
        told = ", ".join(f"{counts[kind]:,} {REFUSED[kind]}" for kind in refused)
        example = next((e for kind in refused for e in counts["examples"].get(kind, ())), None)
        yield f"Texts not taken: {told}" + (f", such as {example}." if example else ".")
