"""Writes and reads the fields of a unit's samples, the JSON lines beside its shard.

A line is {"key": "...", "fields": {...}}. Lines are in the order of the commit record, and only
samples that have fields have one.
"""

from __future__ import annotations

import json
import os
import re
from array import array
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from latentcli.core.errors import StoreError
from latentcli.core.field_values import flaw_of
from latentcli.shards.keys import key_hash
from latentcli.shards.storage.atomic_write import FileDigest, atomic_write
from latentcli.shards.storage.paths import AnyPath, RemotePath, read_part, reading

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
    for _, line in _lines(path):
        yield _parsed(path, line)


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
    return StoreError(f"{path} is damaged: {line[:40]!r} is no line of fields.")


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
        unsorted = np.array(hashes, np.uint64)
        order = np.argsort(unsorted, kind="stable")
        self._hashes = unsorted[order]
        self._begins = np.array(begins, np.int64)[order]
        self._sizes = np.array(sizes, np.int32)[order]

    def __len__(self) -> int:
        return len(self._hashes)

    def get(self, key: str) -> dict[str, Any]:
        """The fields of a key; {} where it has none. StoreError where the file is damaged.

        Where another file has taken its place, that one is read.
        """
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
        wanted = np.uint64(key_hash(key))
        first = at = int(self._hashes.searchsorted(wanted))
        while at < len(self._hashes) and self._hashes[at] == wanted:
            begin, size = int(self._begins[at]), int(self._sizes[at])
            found, fields = _parsed(self.path, self._line(begin, size))
            if found == key:
                return fields
            at += 1
        return {} if first == at else None

    def _line(self, begin: int, size: int) -> bytes:
        if self._local is None:
            return bytes(read_part(self.path, begin, begin + size))
        # One of these for each caption of a training loop: nothing quicker opens a file.
        with reading(self.path):
            file = os.open(self._local, os.O_RDONLY | os.O_CLOEXEC)
            try:
                return os.pread(file, size, begin)
            finally:
                os.close(file)
