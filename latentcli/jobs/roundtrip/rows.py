"""Keeps rows of figures, one per picture, on the disk, and writes them as a CSV file."""

from __future__ import annotations

import csv
import io
import json
import os
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from latentcli.core.errors import StoreError
from latentcli.core.json_values import rounded_value

FIXED = ("key", "source", "width", "height")
"""What a row says of the picture itself."""

Row = dict[str, Any]


class RowSpool:
    """Rows in a file of JSON lines: of each, memory holds two numbers of 8 bytes."""

    def __init__(self, path: Path) -> None:
        self._folder = path.parent
        self._file = path.open("w+b", buffering=0)
        self._starts, self._indices = array("q"), array("q")

    @property
    def count(self) -> int:
        """Rows so far."""
        return len(self._starts)

    @property
    def end(self) -> int:
        """One more than the highest index: an input that fails late leaves a gap."""
        return max(self._indices, default=-1) + 1

    def add(self, row: Row) -> None:
        """Takes in a row; infinities (identical pictures) are written as null.

        StoreError where the folder for temporary files cannot be written.
        """
        figures = [{k: rounded_value(v, 6) for k, v in each.items()} for each in row["figures"]]
        text = json.dumps(row | {"figures": figures}, allow_nan=False)
        self._indices.append(row["index"])
        self._starts.append(self._file.tell())
        try:
            self._file.write(text.encode() + b"\n")
        except OSError as error:
            raise StoreError(
                f"The folder for temporary files, {self._folder.parent}, cannot be written:"
                f" {error.strerror}. Make room, or name another one in TMPDIR."
            ) from error

    def mark(self) -> tuple[int, int]:
        """Where the spool stands."""
        return self._file.tell(), self.count

    def back_to(self, mark: tuple[int, int]) -> None:
        """Forgets what came after a mark."""
        position, count = mark
        del self._starts[count:], self._indices[count:]
        self._file.seek(position)
        self._file.truncate()

    def rows(self) -> Iterator[Row]:
        """All rows, by their index, which may not be the order in which they came."""
        yield from map(self.at, sorted(range(self.count), key=self._indices.__getitem__))

    def at(self, index: int) -> Row:
        """The row that came after `index` others."""
        self._file.seek(self._starts[index])
        row: Row = json.loads(self._file.readline())
        self._file.seek(0, os.SEEK_END)
        return row

    def close(self) -> None:
        """Ends the use of the file."""
        self._file.close()


def csv_lines(rows: Iterator[Row], models: Sequence[str], names: Sequence[str]) -> Iterator[bytes]:
    """One line per picture: FIXED, then `<model>.<figure>` of each model in turn.

    A figure that a picture has not is empty, and `inf` where it came back identical.
    """
    yield line([*FIXED, *(f"{model}.{name}" for model in models for name in names)])
    for row in rows:
        cells = [cell(figures, name) for figures in row["figures"] for name in names]
        yield line([*(row[name] for name in FIXED), *cells])


def cell(figures: Mapping[str, float | None], name: str) -> str:
    """A figure as the file has it."""
    if name not in figures:
        return ""
    value = figures[name]
    return "inf" if value is None else str(value)


def line(cells: Sequence[object]) -> bytes:
    """One line; names of files that are no UTF-8 are written as the bytes that they are."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode("utf-8", "surrogateescape")
