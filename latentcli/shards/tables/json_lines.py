"""Reads files of JSON objects, one a line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from latentcli.shards.tables.table import (
    OTHER,
    PICTURE,
    TEXT,
    UNKNOWN,
    Column,
    Table,
    TableError,
    TableRow,
)
from latentcli.shards.tar.read import ByteStream

LONGEST_LINE = 256 * 2**20
"""Bytes of a line at most; a longer one is a row that fails."""
_LOOKED_AT = 100
"""Lines in which its first object is looked for."""
_CHUNK = 2**20
_BOM = b"\xef\xbb\xbf"


class JsonTable(Table):
    """A file of JSON objects, one a line; one line is in memory.

    Its columns are the fields of its first object. TableError where it has none.
    """

    def __init__(self, stream: ByteStream, size: int) -> None:
        self._lines = _Lines(stream)
        self._begin: list[TableRow] = []
        while (row := self._next()) is not None and len(self._begin) < _LOOKED_AT:
            self._begin.append(row)
            if row.values:
                break
        first = self._begin[-1] if self._begin else TableRow(0, {}, "it is empty")
        if not first.values:
            raise TableError(f"it is not a file of JSON lines: {first.problem or 'it is empty'}")
        self.columns = [Column(name, _holds(value)) for name, value in first.values.items()]

    def rows(self, columns: Sequence[str]) -> Iterator[TableRow]:
        """All fields of all objects in their order, whatever the columns; empty lines are none."""
        for row in chain(self._begin, iter(self._next, None)):
            self.taken = self._lines.taken
            if row.values or row.problem:
                yield row

    def _next(self) -> TableRow | None:
        number = self._lines.count
        try:
            line = self._lines.next()
        except OSError as error:
            text = error.strerror or str(error)
            raise TableError(f"reading failed after line {number:,}: {text}") from error
        if line is None:
            return None
        if len(line) > LONGEST_LINE:
            return TableRow(
                number, {}, f"line {number + 1:,} is longer than {LONGEST_LINE:,} bytes"
            )
        return _parsed(number, line.removeprefix(_BOM) if number == 0 else line)


def _parsed(number: int, line: bytes) -> TableRow:
    if not line.strip():
        return TableRow(number, {})
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        return TableRow(number, {}, f"line {number + 1:,} is not JSON ({error})")
    if not isinstance(value, dict) or not value:
        return TableRow(number, {}, f"line {number + 1:,} is not a JSON object with fields")
    return TableRow(number, value)


def _holds(value: Any) -> str:
    if value is None:
        return UNKNOWN
    if isinstance(value, Mapping):
        return PICTURE if "bytes" in value or "path" in value else OTHER
    return TEXT if isinstance(value, str) else OTHER


class _Lines:
    """The lines of a stream, one at a time; of one that is too long, the beginning."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._held = bytearray()
        self._ended = False
        self.count = 0
        self.taken = 0

    def next(self) -> bytes | None:
        """The next line without its end; None where there is none. OSError as reading."""
        at, kept = self._held.find(b"\n"), bytearray()
        while at < 0 and not self._ended:
            # What is beyond the limit is passed over, but for a byte that tells of it.
            kept += self._held[: max(LONGEST_LINE + 1 - len(kept), 0)]
            self.taken += len(self._held)
            self._held = bytearray(self._stream.read(_CHUNK))
            self._ended = not self._held
            at = self._held.find(b"\n")
        if self._ended and not kept and not self._held:
            return None
        end = len(self._held) if at < 0 else at
        kept += self._held[:end]
        del self._held[: end + 1]
        self.taken += end + (at >= 0)
        self.count += 1
        return bytes(kept)
