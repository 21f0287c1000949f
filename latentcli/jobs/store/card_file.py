"""Puts a generated card into a file of which parts may be a person's, and leaves those as they are.

The generated text stands between two marks. The first one holds digests of the text and of the
front matter, so that a change by hand is seen: then the front matter is kept, and the text is not
replaced unless that is asked for. What stands before and behind the marks is never touched.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from latentcli.core.errors import StoreError

END = "<!-- latentcli card: end -->"
NOTE = "Text outside of these two marks is kept when the card is made again."
_FENCE = "---\n"
_CARD = re.compile(
    r"(?P<before>.*?)<!-- latentcli card: begin (?P<front>[0-9a-f]{16}) (?P<body>[0-9a-f]{16})\."
    r" [^\n]* -->\n(?P<text>.*?)<!-- latentcli card: end -->\n?(?P<after>.*)",
    re.DOTALL,
)
_FRONT = re.compile(r"---\n(?P<front>.*?)(?<=\n)---\n(?P<rest>.*)", re.DOTALL)


class HandWritten(StoreError):
    """A card that is not replaced, since a person's words would be lost."""


@dataclass(frozen=True, slots=True)
class Card:
    """A card's parts, and what of it is as it was generated."""

    front: str
    before: str
    text: str
    after: str
    is_own_front: bool
    is_own_text: bool


def parse_card(document: str) -> Card | None:
    """The parts of a card; None where it has no marks, so that a person has written all of it."""
    found = _FRONT.fullmatch(document)
    front, rest = (found["front"], found["rest"]) if found else ("", document)
    marked = _CARD.fullmatch(rest)
    if marked is None:
        return None
    return Card(
        *(front, marked["before"], marked["text"], marked["after"]),
        is_own_front=_digest(front) == marked["front"],
        is_own_text=_digest(marked["text"]) == marked["body"],
    )


def license_of(document: str) -> str | None:
    """The licence that the front matter of a card names."""
    found = _FRONT.fullmatch(document)
    line = re.search(r"^license: *(\S+) *$", found["front"], re.MULTILINE) if found else None
    return line[1].strip("\"'") if line else None


def merged(document: str | None, front: str, text: str, *, force: bool = False) -> str:
    """The file with a new card in it; `document` is what it holds, None where there is none.

    `force` drops all that a person wrote. HandWritten where that would be needed.
    """
    old = None if document is None or force else parse_card(document)
    if old is None:
        if document is not None and document.strip() and not force:
            raise HandWritten(
                "was written by hand: it has no marks of latentcli. Move it away, or replace it"
                " with --force."
            )
        return _whole(front, "", text, "", _digest(front))
    if not old.is_own_text:
        raise HandWritten(
            "was changed by hand between the marks of latentcli. Move that text after the last"
            " mark, where it is kept, or replace everything with --force."
        )
    if old.is_own_front:
        return _whole(front, old.before, text, old.after, _digest(front))
    # The digest stays that of what was generated, so that it goes on to be seen as changed.
    return _whole(old.front, old.before, text, old.after, _digest(front))


def _whole(front: str, before: str, text: str, after: str, of_front: str) -> str:
    mark = f"<!-- latentcli card: begin {of_front} {_digest(text)}. {NOTE} -->\n"
    return f"{_FENCE}{front}{_FENCE}{before}{mark}{text}{END}\n{after}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
