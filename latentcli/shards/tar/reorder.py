"""Reads a tar in another order of its members, in which those of a sample are in a row.

`tar` stores files as a folder gives them, or all pictures before all texts, as they were named. A
file can be sought in: its headers alone say where the members of each key are. They are looked at
only where the first and the last members look as if they were apart, since that takes a small read
for each member of the whole tar.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from io import BufferedReader
from itertools import groupby, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from latentcli.shards.keys import key_hash
from latentcli.shards.storage.byte_stream import without_waiting
from latentcli.shards.tar import header as tar_header
from latentcli.shards.tar.group import LOOK_AHEAD, is_named, key_and_field
from latentcli.shards.tar.header import BLOCK, BadHeader
from latentcli.shards.tar.write import END, LATENT

_FIRST = 64
"""Members at the start of a tar that are looked at."""
_LAST_BYTES = 2**20
"""Bytes at the end of a tar in which headers are looked for."""
_TRIED = 16
"""What looks like a header there and may be one."""
_MOST_EXTENDED = 2**20
_READ = 8 * 2**20

Read = Callable[[int, int], bytes]
"""Bytes begin to end of a file; fewer where it ends before."""
Integers = npt.NDArray[np.int64]


class Place(NamedTuple):
    """Where a member is."""

    name: str
    begin: int
    """Of its headers."""
    end: int
    """Of its data, filled up to a block."""
    part: int
    """Number of end marks before it: a file may be several tars."""


@dataclass(slots=True)
class OrderedTar:
    """The bytes of a tar file in another order: a stream that goes forward only."""

    file: BufferedReader
    spans: Sequence[tuple[int, int]]
    """Begin and end of what comes one behind the other."""
    _next: int = 0
    _at: int = 0
    _left: int = 0
    _end: bytes = END

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes, perhaps fewer; none at the end."""
        if not self._left and self._next < len(self.spans):
            begin, end = self.spans[self._next]
            self._next += 1
            self.file.seek(begin)
            self._left = end - begin
        if not self._left:
            mark, self._end = self._end, b""
            return mark
        data = self.file.read(min(size if size >= 0 else _READ, self._left))
        self._left = self._left - len(data) if data else 0
        return data


def find_order(path: Path, suffixes: frozenset[str]) -> Sequence[tuple[int, int]] | None:
    """The order in which each sample of a tar file is in a row, as spans of its bytes.

    `suffixes` are those of pictures, lower case with the dot. None where the members are in such an
    order already, as far as their first and last ones show; where nothing can be done, because a
    sample has one name twice; and where the file is no sound tar. It holds some 100 bytes a member.
    """
    try:
        with open(path, "rb", opener=without_waiting) as file:
            size = file.seek(0, 2)

            def read(begin: int, end: int) -> bytes:
                file.seek(begin)
                return file.read(end - begin)

            if not _looks_scattered(read, size, suffixes):
                return None
            return _Members.of(places(read, size), suffixes).order()
    except (OSError, BadHeader):
        return None


def places(read: Read, size: int, at: int = 0) -> Iterator[Place]:
    """The members of a tar of `size` bytes from byte `at` on, by their headers alone.

    BadHeader where it is damaged or cut, or has a header that is for all members behind it.
    """
    part, begin, own = 0, at, dict[str, str]()
    while at < size:
        block = read(at, at + BLOCK)
        if not any(block):
            at = begin = _behind_zeros(read, at, size)
            part += 1
            continue
        header = tar_header.parse(block)
        body, at = at + BLOCK, at + BLOCK + header.size + -header.size % BLOCK
        if at > size or header.more_map or header.kind == tar_header.GLOBAL_PAX:
            raise BadHeader("it cannot be read in another order")
        if header.kind in tar_header.EXTENSIONS:
            own |= _extended(header, read, body)
            continue
        named = tar_header.amended(header, own)
        at = body + named.size + -named.size % BLOCK
        if at > size:
            raise BadHeader("it is cut short")
        if not named.is_skipped:
            yield Place(tar_header.checked_name(named.name)[0], begin, at, part)
        begin, own = at, {}
    if not part:
        raise BadHeader("it has no end mark")


def _behind_zeros(read: Read, at: int, size: int) -> int:
    """The place of the first block that is not zeros; BadHeader where one alone is."""
    begin = at
    while at < size and not any(block := read(at, at + BLOCK)):
        at += len(block)
    if at - begin < len(END):
        raise BadHeader("zeros are where a header should be")
    return at


def _extended(header: tar_header.Header, read: Read, at: int) -> dict[str, str]:
    if header.size > _MOST_EXTENDED:
        raise BadHeader("it has a large extended header")
    return tar_header.extended(header.kind, read(at, at + header.size))


def _looks_scattered(read: Read, size: int, suffixes: frozenset[str]) -> bool:
    """Whether samples seem to be apart, by the first members and by the last ones.

    That is where a row of members of one key has no picture, or where the last members have fields
    that the first ones have not.
    """
    first = _rows(islice(places(read, size), _FIRST))
    last = _rows(_last_places(read, size))[1:]
    if any(_lacks_picture(row, suffixes) for row in (*first[:-1], *last)):
        return True
    usual = {_kind(field) for row in first for field in row}
    return any(_kind(field) not in usual for row in last for field in row)


def _rows(members: Iterator[Place]) -> list[list[str]]:
    """The fields of members in a row of one sample, as far as names tell."""
    named = ((place.name, *parted) for place in members if (parted := key_and_field(place.name)))
    rows = groupby(
        named, lambda part: part[1] if _is_field(part[2]) else part[0].rpartition(".")[0]
    )
    return [[field for _, _, field in row] for _, row in rows]


def _is_field(rest: str) -> bool:
    return is_named(rest) or "." not in rest


def _last_places(read: Read, size: int) -> Iterator[Place]:
    """Members at the end of a tar, from a header on that is found there."""
    start = max(size - _LAST_BYTES, 0) // BLOCK * BLOCK
    window = read(start, size)
    blocks = np.frombuffer(window[: len(window) // BLOCK * BLOCK], np.uint8).reshape(-1, BLOCK)
    magic = np.frombuffer(b"ustar", np.uint8)
    found = np.flatnonzero((blocks[:, 257:262] == magic).all(axis=1))
    for number in found[:_TRIED].tolist():
        try:
            yield from list(places(read, size, start + number * BLOCK))
            return
        except BadHeader:  # the data of a member may look like a header
            continue


def _lacks_picture(fields: Sequence[str], suffixes: frozenset[str]) -> bool:
    return not any(_suffix(field) in suffixes for field in fields)


def _suffix(field: str) -> str:
    return f".{field.rpartition('.')[2].lower()}"


def _kind(field: str) -> str:
    """A field, without the part of a key that it may begin with."""
    return field.lower() if _is_field(field) else _suffix(field)


@dataclass(slots=True)
class _Members:
    """What is kept of each member: numbers alone, as a tar may have millions."""

    keys: array[int] = field(default_factory=lambda: array("Q"))
    stems: array[int] = field(default_factory=lambda: array("Q"))
    names: array[int] = field(default_factory=lambda: array("Q"))
    marks: bytearray = field(default_factory=bytearray)
    """1: its field has no dot; 2: it is a picture with the name of a field."""
    ends: array[int] = field(default_factory=lambda: array("q"))
    begins: array[int] = field(default_factory=lambda: array("q"))

    @classmethod
    def of(cls, members: Iterator[Place], suffixes: frozenset[str]) -> _Members:
        """Those of a tar; what has no key goes with what was before it."""
        found, key, stem = cls(), "", ""
        for name, begin, end, part in members:
            own, rest = key_and_field(name) or ("", "")
            if own:
                key, stem = f"{part}\0{own}", f"{part}\0{name.rpartition('.')[0]}"
            found.keys.append(key_hash(key))
            found.stems.append(key_hash(stem))
            found.names.append(key_hash(f"{part}\0{name.lower()}"))
            short = bool(own) and ("." not in rest or rest == LATENT)
            found.marks.append(short | (is_named(rest) and _suffix(rest) in suffixes) << 1)
            found.begins.append(begin)
            found.ends.append(end)
        return found

    def order(self) -> list[tuple[int, int]] | None:
        """Spans in which each sample is in a row; None where there is nothing to change.

        Samples come in the order of their first members, and members in theirs.
        """
        if not self.keys:
            return None
        place = np.arange(len(self.keys))
        key = _first_of(np.array(self.keys, np.uint64))
        stem = _first_of(np.array(self.stems, np.uint64))
        marks = np.frombuffer(self.marks, np.uint8)
        count, short, named = (
            np.bincount(key, weights, len(key))[key] for weights in (None, marks & 1, marks >> 1)
        )
        # As in group.py: of such keys, each stem is a sample.
        parted = (short == 0) & ((named == 0) | (count >= LOOK_AHEAD))
        sample = np.where(parted, stem, key)
        again = _first_of(np.array(self.names, np.uint64)) != place
        unclear = np.bincount(sample, again, len(place))[sample] > 0
        begins = np.r_[True, sample[1:] != sample[:-1]]
        row = np.maximum.accumulate(np.where(begins, place, 0))
        order = np.lexsort((place, np.where(unclear, row, sample)))
        if np.array_equal(order, place):
            return None
        return self._spans(order)

    def _spans(self, order: Integers) -> list[tuple[int, int]]:
        begins, ends = np.array(self.begins)[order], np.array(self.ends)[order]
        breaks = np.r_[True, begins[1:] != ends[:-1]]
        last = np.r_[breaks[1:], True]
        return list(zip(begins[breaks].tolist(), ends[last].tolist(), strict=True))


def _first_of(hashes: npt.NDArray[np.uint64]) -> Integers:
    """For each, the index of the first that is equal."""
    _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    return first[inverse].astype(np.int64)
