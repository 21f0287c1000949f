"""Groups reasons of failure by what they say of every input, apart from names and numbers of one.

The whole sentence of each input stays in its row; a group is what a summary counts. Of what stands
in the same place of all its sentences, such as the limit in "picture is 8000x9000; the limit is
4,000,000", the group keeps what is equal in all, and "..." stands for the rest.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

MOST = 1000
"""Groups that are kept apart; a reason that comes later counts as another one of its stage."""
EXAMPLES = 3
"""Keys named for a group."""
LEFT_OUT = "..."

_MARK = "\0"
"""Stands for a name of the input itself, which the text had in this place."""
_OWN = re.compile(
    r"(?<!\w)b?'[^'\n]*'(?!\w)"  # quoted names, and bytes
    r'|(?<!\w)b?"[^"\n]*"(?!\w)'
    r"|[^\s'\"(]*[/\0](?:[^\s'\"),;]*[^\s'\"),;:.])?"  # paths and URLs
    r"|\b[0-9a-f]{2}(?: [0-9a-f]{2})+\b"
    r"|0x[0-9a-f]+"
    r"|\d+(?:[.,]\d+)*(?: (?:bytes?|frames?|members?|pixels?)\b)?"
)
"""What may belong to one input alone."""
PLACES = re.compile("['\"/]")
"""What marks a part as a name."""


@dataclass(slots=True)
class Group:
    """Inputs that failed for one reason."""

    words: tuple[str, ...]
    """What stands around the parts, one more than there are parts."""
    parts: list[str | None]
    """What all inputs have at a place; None where they differ."""
    count: int = 0
    keys: list[str] = field(default_factory=list)
    """Of the first few."""
    example: str = ""
    """The whole sentence of the first."""

    def add(self, parts: Iterable[str | None], key: str, why: str) -> None:
        """Takes an input in."""
        self.example = self.example or why
        pairs = zip(self.parts, parts, strict=True)
        self.parts = [mine if mine == theirs else None for mine, theirs in pairs]
        self.count += 1
        if len(self.keys) < EXAMPLES:
            self.keys.append(key)

    @property
    def text(self) -> str:
        """The reason, as far as it is that of all."""
        shown = [LEFT_OUT if part is None else part for part in self.parts]
        pairs = zip(self.words, [*shown, ""], strict=True)
        return "".join(word + part for word, part in pairs)


@dataclass(slots=True)
class Reasons:
    """Why inputs failed; memory does not grow with their number."""

    groups: dict[tuple[str, ...], Group] = field(default_factory=dict)
    """By their words."""

    def add(self, why: str, key: str, source: str = "") -> None:
        """Counts an input with its key and source; `why` is "stage: reason"."""
        words, parts = taken_apart(why, (source, key))
        if words not in self.groups and len(self.groups) >= MOST:
            why = f"{why.partition(':')[0]}: other reasons"
            words, parts = (why,), ()
        group = self.groups.get(words)
        if group is None:
            group = self.groups[words] = Group(words, list(parts))
        group.add(parts, key, why)

    def most_common(self) -> list[Group]:
        """All groups, the largest first, and those of one size in the order in which they came."""
        return sorted(self.groups.values(), key=lambda group: -group.count)

    def counts(self, most: int = MOST) -> dict[str, int]:
        """Text to number of the `most` largest groups, for a --json document."""
        found: dict[str, int] = {}
        for group in self.most_common()[:most]:
            found[group.text] = found.get(group.text, 0) + group.count
        return found

    def examples(self, most: int = MOST) -> dict[str, dict[str, str]]:
        """Key and whole sentence of the first input of each of `counts`."""
        found: dict[str, dict[str, str]] = {}
        for group in self.most_common()[:most]:
            found.setdefault(group.text, {"key": group.keys[0], "error": group.example})
        return found


def with_example(text: str, examples: Mapping[str, Mapping[str, str]]) -> str:
    """A group as a person reads it: the sentence of its first input, and which input that is."""
    if text not in examples:
        return text
    key, error = examples[text]["key"], examples[text]["error"]
    return error if key in error else f"{error}, as in {key}"


def taken_apart(why: str, names: Iterable[str]) -> tuple[tuple[str, ...], tuple[str | None, ...]]:
    """(the words that all such reasons have, what stands between them).

    A part that holds one of `names`, which are the input's own, is None.
    """
    there = (re.escape(name) for name in names if name and name in why)
    named = [re.compile(rf"(?<!\w){name}(?!\w)") for name in there]
    hidden = why
    for name in named:
        hidden = name.sub(hide, hidden)
    words: list[str] = []
    parts: list[str | None] = []
    at = 0
    for match in _OWN.finditer(hidden):
        part = why[match.start() : match.end()]
        own = _MARK in match[0] or (PLACES.search(part) and any(n.search(part) for n in named))
        words.append(why[at : match.start()])
        parts.append(None if own else part)
        at = match.end()
    return (*words, why[at:]), tuple(parts)


def hide(name: re.Match[str]) -> str:
    """Marks in the place of a name, unless it is a word: many reasons have a "file" in them."""
    return name[0] if name[0].isalpha() else _MARK * len(name[0])
