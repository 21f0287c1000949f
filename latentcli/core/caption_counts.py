"""Counts what became of the captions of a job's samples, with a few names as examples."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from latentcli.core.fields import Gathered, Problem

KINDS = (
    "with_caption",
    "missing",
    "empty",
    "not_utf8",
    "too_long",
    "broken",
    "unreadable",
    "unused_rows",
)
"""Samples that have a caption; samples for which no text was found at all; texts, documents and
rows that were refused, by why; and rows of metadata that are of no sample, or of one that has one.
"""
EXAMPLES = 3
"""Names kept of each kind."""


@dataclass(slots=True)
class CaptionCounts:
    """Counts by KINDS; those of several processes add up."""

    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    examples: dict[str, list[str]] = field(default_factory=dict)
    """By kind: names of samples, or what was refused and why."""

    def add(self, key: str, found: Gathered | None) -> None:
        """One sample; None stands for one that nothing belongs to."""
        if found is not None and found.caption is not None:
            self.count("with_caption")
        elif found is None or not found.problems:
            self.count("missing", key)
        if found is not None:
            self.add_problems(found.problems, f"{key}: ")

    def add_problems(self, problems: Iterable[Problem], of: str = "") -> None:
        """What was refused; `of` stands in front of its name."""
        for kind, where, reason in problems:
            self.count(kind, f"{of}{where}: {reason}")

    def count(self, kind: str, example: str | None = None, number: int = 1) -> None:
        """Counts some of a kind."""
        self.counts[kind] += number
        if example is not None:
            names = self.examples.setdefault(kind, [])
            if len(names) < EXAMPLES:
                names.append(example)

    def merge(self, other: CaptionCounts) -> None:
        """Adds the counts of another part of the job."""
        for kind, number in other.counts.items():
            self.counts[kind] += number
        for kind, names in other.examples.items():
            mine = self.examples.setdefault(kind, [])
            mine += names[: EXAMPLES - len(mine)]

    def to_json(self) -> dict[str, Any]:
        """The counts by kind, and `examples`: lists of names by kind."""
        return {**self.counts, "examples": {k: list(v) for k, v in self.examples.items()}}
