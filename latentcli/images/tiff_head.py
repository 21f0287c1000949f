"""Reads the numbers in the first directory of a TIFF file, and nothing that they point to."""

from __future__ import annotations

import struct

MAGIC = (b"II*\x00", b"MM\x00*", b"II\x00*", b"MM*\x00", b"II+\x00", b"MM\x00+")
"""First bytes of TIFF files, of those with two of them exchanged, and of BigTIFF."""

_LETTERS = {1: "B", 3: "H", 4: "I", 16: "Q"}
"""Type -> how struct names it."""


def first_directory(head: bytes) -> dict[int, int]:
    """Tag -> its first number, where that lies in the directory itself, else 0.

    As far as `head` holds the directory; nothing of what is no TIFF file.
    """
    order = "<" if head[:2] == b"II" else ">"
    is_big = head[2:4] in (b"+\x00", b"\x00+")
    offset, count, entry = ("Q", "Q", "HHQ8s") if is_big else ("I", "H", "HHI4s")
    try:
        (start,) = struct.unpack_from(order + offset, head, 8 if is_big else 4)
        (entries,) = struct.unpack_from(order + count, head, start)
        start += struct.calcsize(order + count)
        rows = list(struct.iter_unpack(order + entry, _table(head, start, entries, order + entry)))
    except (struct.error, OverflowError):
        return {}
    return {tag: _number(order, kind, value) for tag, kind, _, value in rows}


def _table(head: bytes, start: int, entries: int, entry: str) -> bytes:
    size = entries * struct.calcsize(entry)
    if start + size > len(head):
        raise struct.error("the directory is not in these bytes")
    return head[start : start + size]


def _number(order: str, kind: int, value: bytes) -> int:
    form = order + _LETTERS.get(kind, "")
    fits = kind in _LETTERS and struct.calcsize(form) <= len(value)
    return int(struct.unpack_from(form, value)[0]) if fits else 0
