"""Counts which fields of the samples of tars were encoded, and what was chosen among several."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from latentcli.core.types import Row
from latentcli.shards.store.commit import CommitRecord
from latentcli.shards.store.roots import NO_ROOTS, Roots

MOST = 100
"""Different fields, and choices, that are counted apart."""
OTHERS = "..."
"""What the later ones count as."""


@dataclass(slots=True)
class Choice:
    """One way of choosing among the pictures of a sample."""

    choice: str
    """As the notes of rows say it."""
    first: str
    """The first tar with such samples."""
    samples: int = 0
    tars: int = 0
    last: str = ""
    """The last tar with such samples."""


@dataclass(slots=True)
class FieldCounts:
    """What the rows of tars say of their fields."""

    fields: Counter[str] = field(default_factory=Counter)
    choices: dict[str, Choice] = field(default_factory=dict)
    nothing_to_encode: int = 0
    """Samples without a picture (or clip)."""

    def add(self, record: CommitRecord) -> None:
        """Takes in a unit of a store."""
        self.nothing_to_encode += record.nothing_to_encode or 0
        for row in record.rows:
            self.add_row(row, record.source or "")

    def add_row(self, row: Row, tar: str) -> None:
        """Takes in a sample of a tar."""
        if row.field is None:
            return
        name = row.field.lower()
        known = name in self.fields or len(self.fields) < MOST
        self.fields[name if known else OTHERS] += 1
        chosen = f"field {row.field} taken, "
        for text in (note for note in row.notes if note.startswith(chosen)):
            text = text if text in self.choices or len(self.choices) < MOST else OTHERS
            found = self.choices.setdefault(text, Choice(text, tar))
            found.samples += 1
            found.tars += tar != found.last
            found.last = tar

    def to_json(self, roots: Roots = NO_ROOTS) -> dict[str, Any]:
        """What a document has of it; `roots` are those that the records' sources are below."""
        order = sorted(self.choices.values(), key=lambda choice: -choice.samples)
        choices = [
            {
                "choice": c.choice,
                "samples": c.samples,
                "tars": c.tars,
                "first": roots.whole(c.first),
            }
            for c in order
        ]
        return {
            "image_fields": dict(self.fields.most_common()),
            "field_choices": choices,
            "nothing_to_encode": self.nothing_to_encode,
        }
