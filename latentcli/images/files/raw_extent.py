"""Finds whether a camera's file is cut short: LibRaw develops what is left of one."""

from __future__ import annotations

import struct
from collections.abc import Iterator

_STRIPS, _STRIP_BYTES, _TILES, _TILE_BYTES = 273, 279, 324, 325
_JPEG, _JPEG_BYTES, _SUB_IFDS = 513, 514, 330
_PARTS = ((_STRIPS, _STRIP_BYTES), (_TILES, _TILE_BYTES), (_JPEG, _JPEG_BYTES))
_LETTERS = {3: "H", 4: "I", 13: "I"}
_MOST_DIRECTORIES = 64


def points_behind_its_end(data: bytes) -> bool:
    """Whether a file like TIFF, as most cameras write, names parts of itself that are not there."""
    return any(
        start + size > len(data)
        for tags in _directories(data)
        for starts, sizes in _PARTS
        for start, size in zip(tags.get(starts, ()), tags.get(sizes, ()), strict=False)
    )


def _directories(data: bytes) -> Iterator[dict[int, tuple[int, ...]]]:
    """Tag -> its numbers, of every directory, as far as they can be read."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or len(data) < 8:
        return
    waiting, seen = list(struct.unpack_from(f"{order}I", data, 4)), set[int]()
    while waiting and len(seen) < _MOST_DIRECTORIES:
        at = waiting.pop()
        if at in seen or at == 0:
            continue
        seen.add(at)
        try:
            (count,) = struct.unpack_from(f"{order}H", data, at)
            rows = [struct.unpack_from(f"{order}HHI", data, at + 2 + 12 * i) for i in range(count)]
            following = struct.unpack_from(f"{order}I", data, at + 2 + 12 * count)
        except struct.error:
            continue
        wanted = {_SUB_IFDS, *(tag for pair in _PARTS for tag in pair)}
        tags = {
            tag: _numbers(data, order, kind, size, at + 10 + 12 * i)
            for i, (tag, kind, size) in enumerate(rows)
            if tag in wanted and kind in _LETTERS
        }
        waiting += [*following, *tags.get(_SUB_IFDS, ())]
        yield tags


def _numbers(data: bytes, order: str, kind: int, count: int, at: int) -> tuple[int, ...]:
    form = f"{order}{count}{_LETTERS[kind]}"
    try:
        if struct.calcsize(form) > 4:
            (at,) = struct.unpack_from(f"{order}I", data, at)
        return struct.unpack_from(form, data, at)
    except struct.error:
        return ()
