"""Writes and reads the fields of a unit's samples, the JSON lines beside its shard.

A line is {"key": "...", "fields": {...}}. Lines are in the order of the commit record, and only
samples that have fields have one.
"""

from __future__ import annotations

import json
import os
import re
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np

from latentcli.core.errors import StoreError
from latentcli.core.field_values import flaw_of
from latentcli.shards.keys import key_hash
from latentcli.shards.storage.atomic_write import FileDigest, atomic_write
from latentcli.shards.storage.paths import AnyPath, RemotePath, reading
from latentcli.shards.storage.ranges import read_ranges

_TOGETHER = 256
"""Lines that are parsed at a time."""
_KEY = re.compile(rb'\{"key":("(?:[^"\\]|\\.)*"),"fields":')


def write_fields(path: AnyPath, rows: Iterable[tuple[str, Mapping[str, Any]]]) -> FileDigest:
    """Writes the fields of samples by key, each key once; those without fields are left out.

    Equal rows give equal bytes. ValueError for a value that `flaw_of` names; StoreError as
    `atomic_write`.
    """
    return atomic_write(path, (_line(key, fields) for key, fields in rows if fields))


def _line(key: str, fields: Mapping[str, Any]) -> bytes:
    if flaw := flaw_of(fields):
        raise ValueError(f"the fields of {key!r} cannot be written: {flaw}")
    return b'{"key":%b,"fields":%b}\n' % (_json(key), _json(fields))


def _json(value: Any) -> bytes:
    return json.dumps(
        value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")
    ).encode()


def iter_fields(path: AnyPath) -> Iterator[tuple[str, dict[str, Any]]]:
    """Keys and fields in the order of the file; StoreError where it is missing or damaged."""
    lines = (line for _, line in _lines(path))
    while some := list(islice(lines, _TOGETHER)):
        yield from _parsed_together(path, some)


def _lines(path: AnyPath) -> Iterator[tuple[int, bytes]]:
    """Offset and bytes of each line."""
    with reading(path):
        if isinstance(path, RemotePath):
            lines: Iterable[bytes] = path.read_bytes().splitlines(keepends=True)
            yield from _placed(lines)
            return
        with path.open("rb") as file:
            yield from _placed(file)


def _placed(lines: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    begin = 0
    for line in lines:
        yield begin, line
        begin += len(line)


def _parsed(path: AnyPath, line: bytes) -> tuple[str, dict[str, Any]]:
    try:
        # Text: of bytes the encoding would be guessed.
        row = json.loads(line.decode())
        key, fields = row["key"], row["fields"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _damaged(path, line) from error
    if not isinstance(key, str) or not isinstance(fields, dict) or not line.endswith(b"}\n"):
        raise _damaged(path, line)
    return key, fields


def _parsed_together(path: AnyPath, lines: Sequence[bytes]) -> list[tuple[str, dict[str, Any]]]:
    """`_parsed` of each line, several times quicker."""
    try:
        rows = json.loads(f"[{','.join([line.decode() for line in lines])}]")
        found = [(row["key"], row["fields"]) for row in rows]
    except (ValueError, KeyError, TypeError, RecursionError):
        found = []
    # Anything odd is told of its own line.
    sound = all(type(key) is str and type(fields) is dict for key, fields in found)
    is_cut = bool(lines) and not lines[-1].endswith(b"}\n")
    if len(found) != len(lines) or is_cut or not sound:
        return [_parsed(path, line) for line in lines]
    return found


def _key_of(path: AnyPath, line: bytes) -> str:
    """The key of a line, without parsing all of it."""
    match = _KEY.match(line)
    if match is None or not line.endswith(b"}\n"):
        raise _damaged(path, line)
    try:
        return str(json.loads(match[1]))
    except ValueError as error:
        raise _damaged(path, line) from error


def _damaged(path: AnyPath, line: bytes) -> StoreError:
    return StoreError(f"{path} is damaged: {line[:40]!r} is not a line of fields.")


class FieldsFile:
    """The fields of one unit by key: 20 bytes a key, and a read of one line for each look-up."""

    def __init__(self, path: AnyPath, *, is_settled: bool = True) -> None:
        """Reads the file once; StoreError where it is missing or damaged."""
        self.path = path
        self.is_settled = is_settled
        """Whether it has the name that it will keep."""
        self._local = None if isinstance(path, RemotePath) else os.fspath(path)
        self._read()

    def _read(self) -> None:
        hashes, begins, sizes = array("Q"), array("q"), array("i")
        for begin, line in _lines(self.path):
            hashes.append(key_hash(_key_of(self.path, line)))
            begins.append(begin)
            sizes.append(len(line))
        order = np.argsort(np.array(hashes, np.uint64), kind="stable").tolist()
        # No numpy from here on, which takes longer for a single number.
        self._hashes = array("Q", [hashes[place] for place in order])
        self._begins = array("q", [begins[place] for place in order])
        self._sizes = array("i", [sizes[place] for place in order])

    def __len__(self) -> int:
        return len(self._hashes)

    def get(self, key: str) -> dict[str, Any]:
        """The fields of a key; {} where it has none. StoreError where the file is damaged.

        Where another file has taken its place, that one is read.
        """
        return self.many([key])[0]

    def many(self, keys: Sequence[str]) -> list[dict[str, Any]]:
        """`get` of many keys at once: the file is opened once, and their lines parsed together."""
        spans = [self._spans(key) for key in keys]
        alone = [span[0] for span in spans if len(span) == 1]
        try:
            rows = iter(_parsed_together(self.path, self._lines(alone)))
        except StoreError:
            return [self._looked_up(key) for key in keys]
        found = []
        for key, span in zip(keys, spans, strict=True):
            owner, fields = next(rows) if len(span) == 1 else (None, {})
            found.append(fields if owner == key or not span else self._looked_up(key))
        return found

    def _looked_up(self, key: str) -> dict[str, Any]:
        """The fields of a key that is not the only one of its hash, or whose file is another."""
        try:
            found = self._find(key)
        except StoreError:
            found = None
        if found is None:
            self._read()
            found = self._find(key)
        return found or {}

    def _find(self, key: str) -> dict[str, Any] | None:
        """The fields of a key; None where its line is now that of another key."""
        spans = self._spans(key)
        for line in self._lines(spans):
            found, fields = _parsed(self.path, line)
            if found == key:
                return fields
        return None if spans else {}

    def _spans(self, key: str) -> list[tuple[int, int]]:
        """Where the lines lie that may be of a key: first byte and size."""
        wanted, hashes = key_hash(key), self._hashes
        spans: list[tuple[int, int]] = []
        at = bisect_left(hashes, wanted)
        while at < len(hashes) and hashes[at] == wanted:
            spans.append((self._begins[at], self._sizes[at]))
            at += 1
        return spans

    def _lines(self, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        if self._local is None:
            places = [(begin, begin + size) for begin, size in spans]
            return [bytes(line) for line in read_ranges(self.path, places)]
        if not spans:
            return []
        # For each batch of a training loop: nothing quicker opens a file.
        with reading(self.path):
            file = os.open(self._local, os.O_RDONLY | os.O_CLOEXEC)
            try:
                return [os.pread(file, size, begin) for begin, size in spans]
            finally:
                os.close(file)
