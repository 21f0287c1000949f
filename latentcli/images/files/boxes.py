"""Walks the boxes of ISO files: JPEG 2000, AVIF and JPEG XL have them in common."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

_TRUE_SIZE_FOLLOWS = 1


@dataclass(frozen=True, slots=True)
class Box:
    """One box of a file."""

    kind: bytes
    body: memoryview
    """Shorter than the box says, where the file is cut short."""


def boxes(data: bytes | memoryview, skip: int = 0) -> Iterator[Box]:
    """The boxes of a file, or those in a box, after `skip` bytes; up to what is no box."""
    view, at = memoryview(data), skip
    while at + 8 <= len(view):
        size, head = int.from_bytes(view[at : at + 4], "big"), 8
        if size == _TRUE_SIZE_FOLLOWS:
            size, head = int.from_bytes(view[at + 8 : at + 16], "big"), 16
        end = at + size if size else len(view)
        if end < at + head:
            return
        yield Box(bytes(view[at + 4 : at + 8]), view[at + head : end])
        at = end


def inside(data: bytes | memoryview, *path: bytes, skip: int = 0) -> memoryview:
    """The body of the first box on a path of kinds; empty where there is none."""
    view = memoryview(data)
    for kind in path:
        view = next((box.body for box in boxes(view, skip) if box.kind == kind), view[:0])
        skip = 0
    return view
