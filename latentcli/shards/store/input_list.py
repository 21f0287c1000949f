"""Writes and reads inputs.jsonl, the frozen input list of a store, unit by unit."""

from __future__ import annotations

import json
import os
import re
from array import array
from collections.abc import Iterable, Iterator
from itertools import islice
from tempfile import TemporaryFile
from typing import Any, BinaryIO, Self

from latentcli.core.errors import StoreError
from latentcli.core.types import InputRow
from latentcli.shards.storage.atomic_write import FileDigest, atomic_write
from latentcli.shards.storage.byte_stream import RANGE, open_stream
from latentcli.shards.storage.paths import AnyPath, RemotePath, read_part, reading
from latentcli.shards.store.roots import NO_ROOTS, Roots, read_roots

_FIELDS = {"key": str, "source": str, "unit": int, "size": int, "mtime_ns": int}
_MORE = {"sha256": str, "stamp": int}
"""Fields that most rows lack."""
_KINDS = _FIELDS | _MORE
_MOST_EMPTY = 1_000_000
"""Units without inputs that may follow each other: more are a damaged number."""
# Quotes inside a JSON string are escaped, so this never matches within a key or a path.
_UNIT = re.compile(rb'"unit"\s*:\s*(\d+)')


def write_inputs(path: AnyPath, rows: Iterable[InputRow], roots: Roots = NO_ROOTS) -> FileDigest:
    """Writes the list atomically, one JSON object a line; rows come in the order of their units.

    Numbers may be left out: a unit whose inputs are all gone has no row.
    """
    return atomic_write(path, _lines(rows, roots))


def _lines(rows: Iterable[InputRow], roots: Roots) -> Iterator[bytes]:
    unit = 0
    for row in rows:
        if row.unit < unit:
            raise ValueError(f"input {row.key!r} of unit {row.unit} follows one of unit {unit}")
        unit = row.unit
        values = {name: getattr(row, name) for name in _FIELDS}
        values["source"] = roots.stored(row.source)
        values |= {name: value for name in _MORE if (value := getattr(row, name))}
        yield json.dumps(values).encode() + b"\n"


class InputList:
    """The frozen list, read from disk unit by unit.

    It holds two integers per unit and no row, so it costs nothing to send to worker processes.
    Sources are relative to the store's roots in the file, and whole in the rows.
    Of a remote list the process that opened it has a copy; others fetch the units they need.
    """

    def __init__(
        self,
        path: AnyPath,
        offsets: array[int],
        counts: array[int],
        roots: Roots,
        local: BinaryIO | None = None,
    ) -> None:
        self.path = path
        self.roots = roots
        self._local = local
        self._offsets = offsets
        self._counts = counts

    @classmethod
    def open(cls, path: AnyPath, roots: Roots | None = None) -> Self:
        """Scans a list once; StoreError where it is missing or its units are out of order.

        `roots` are those of the store that it is in, unless they are given.
        """
        local = _fetch(path) if isinstance(path, RemotePath) else None
        offsets, counts, end = array("q"), array("q"), 0
        for number, line in enumerate(_read_lines(path, local), 1):
            match = _UNIT.search(line)
            if match is None or not line.endswith(b"}\n"):
                raise StoreError(f"{path} is damaged: line {number} is not a row of an input list.")
            unit = int(match[1])
            if unit < len(counts) - 1 or unit > len(counts) + _MOST_EMPTY:
                raise StoreError(f"{path} is damaged: unit {unit} is out of order, line {number}.")
            for _ in range(len(counts), unit + 1):
                offsets.append(end)
                counts.append(0)
            counts[unit] += 1
            end += len(line)
        offsets.append(end)
        roots = read_roots(path.parent) if roots is None else roots
        return cls(path, offsets, counts, roots, local)

    @property
    def units(self) -> int:
        """Number of units; they are numbered from 0, and some may have no inputs any more."""
        return len(self._counts)

    @property
    def numbers(self) -> list[int]:
        """The units that have inputs, ascending."""
        return [unit for unit, count in enumerate(self._counts) if count]

    def __len__(self) -> int:
        return sum(self._counts)

    def __iter__(self) -> Iterator[InputRow]:
        for unit in range(self.units):
            yield from self.rows(unit)

    def count(self, unit: int) -> int:
        """Number of inputs of a unit."""
        return self._counts[unit]

    def rows(self, unit: int, start: int = 0, count: int | None = None) -> list[InputRow]:
        """Rows `start` to `start + count` of a unit (all of them without these two)."""
        stop = None if count is None else start + count
        lines = islice(self._unit_bytes(unit).splitlines(), start, stop)
        return [self._row(line, unit) for line in lines]

    def _unit_bytes(self, unit: int) -> bytes:
        begin, end = self._offsets[unit], self._offsets[unit + 1]
        if self._local is None:
            return bytes(read_part(self.path, begin, end))
        with reading(self.path):
            return os.pread(self._local.fileno(), end - begin, begin)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_local": None}

    def _row(self, line: bytes, unit: int) -> InputRow:
        try:
            values: dict[str, Any] = json.loads(line)
            fields = {name: values[name] for name in _FIELDS}
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f"{self.path} is damaged: a row of unit {unit} is malformed."
            ) from error
        fields |= {name: values[name] for name in _MORE if name in values}
        if fields["unit"] != unit or any(type(fields[name]) is not _KINDS[name] for name in fields):
            raise StoreError(
                f"{self.path} is damaged: {fields['key']!r} is not a row of unit {unit}."
            )
        fields["source"] = self.roots.whole(fields["source"])
        return InputRow(**fields)


def _fetch(path: RemotePath) -> BinaryIO:
    """A copy without a name: it goes with the process, however that ends."""
    copy: BinaryIO = TemporaryFile()  # noqa: SIM115
    with reading(path, "the input list "), open_stream(path) as stream:
        while block := stream.read(RANGE):
            copy.write(block)
        copy.flush()
    return copy


def _read_lines(path: AnyPath, local: BinaryIO | None) -> Iterator[bytes]:
    if local is not None:
        local.seek(0)
        yield from local
        return
    with reading(path, "the input list "), path.open("rb") as file:
        yield from file
