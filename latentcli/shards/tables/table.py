"""Defines a table of samples: its columns, and its rows one after the other."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PICTURE, BYTES, TEXT, UNKNOWN, OTHER = "{bytes, path}", "bytes", "text", "null", "other"
"""What the cells of a column are; of OTHER no picture can be made."""


class TableError(Exception):
    """A table that cannot be used, or not be read on; why, in plain words."""


class NoPictures(TableError):
    """A table in which no column of pictures is found, or not the one that is meant."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table."""

    name: str
    holds: str
    """PICTURE, BYTES, TEXT, UNKNOWN or OTHER."""
    feature: str = ""
    """What the Hugging Face metadata of the file call it, such as Image."""


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row of a table."""

    number: int
    """From 0; of a file of lines, that of the line."""
    values: Mapping[str, Any]
    """Plain values by column; text that is no UTF-8 has surrogate escapes."""
    problem: str | None = None
    """Why the row cannot be read, in plain words; then there are no values."""


class Table(ABC):
    """An open table, read once from its beginning to its end."""

    columns: Sequence[Column]
    taken: int = 0
    """Bytes of the file that the rows so far stand for."""

    @abstractmethod
    def rows(self, columns: Sequence[str]) -> Iterator[TableRow]:
        """The rows with these columns, in their order; TableError where the file breaks off."""

    def row(self, number: int, column: str) -> TableRow:
        """One row with one column; TableError where there is none of this number."""
        for row in self.rows([column]):
            if row.number == number:
                return row
        raise TableError(f"it has no row {number} any more")
