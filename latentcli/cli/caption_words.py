"""Says in words what became of the captions of a job."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from latentcli.cli import words

USUAL = "auto"
"""The --captions that takes whatever there is."""
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
    noun = "clip" if document.get("media") == "clips" else "image"
    mode = counts.get("mode", USUAL).removeprefix(".")
    # Those that a store had before may be gone by a mistyped name: that is not passed over.
    if mode != USUAL and counts["missing"] and not counts["with_caption"]:
        yield (
            f"Captions: no {noun} has one. --captions {mode} takes only fields named {mode}, and"
            f" files such as NAME.{mode} beside NAME.jpg; --captions {USUAL} takes the usual ones."
        )
    if not counts["with_caption"] and not refused:
        return
    # A run that had no texts to read says nothing of those that the store has.
    number = counts["with_caption"]
    if number or document.get("encoded"):
        yield f"Captions: {words.count(number, noun)} {'has' if number == 1 else 'have'} one."
    if refused:
        told = ", ".join(f"{counts[kind]:,} {REFUSED[kind]}" for kind in refused)
        example = next((e for kind in refused for e in counts["examples"].get(kind, ())), None)
        yield f"Texts not taken: {told}" + (f", such as {example}." if example else ".")
