"""Finds what the scans of a JPEG file leave out of its picture.

A file of several scans that is cut between two of them is sound to a decoder, and its picture
coarse or without a colour.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

_NO_MARKERS = frozenset((0x00, *range(0xD0, 0xD8), 0xFF))
"""What follows FF in the data of a scan: stuffing, restarts, and filling before a marker."""
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_START, _SCAN, _END, _PROFILE = 0xD8, 0xDA, 0xD9, 0xE2


@dataclass(frozen=True, slots=True)
class Gaps:
    """What was not sent."""

    parts: bool = False
    """Whether some coefficients of a colour never came."""
    detail: bool = False
    """Whether the last bits of some never came."""


def find_gaps(data: bytes) -> Gaps:
    """What the scans leave out; nothing, at once, where the first scan holds all."""
    depths: dict[int, list[int | None]] = {}
    for marker, start, end in _segments(data):
        body = data[start + 4 : end]
        if marker in _FRAMES and not depths:
            depths = {body[i]: [None] * 64 for i in range(6, len(body) - 2, 3)}
        elif marker == _SCAN and body:
            count = body[0]
            first, last, bits = body[1 + 2 * count : 4 + 2 * count]
            if count == len(depths) and (first, last) == (0, 63):
                return Gaps()
            for component in body[1 : 1 + 2 * count : 2]:
                if component in depths:
                    depths[component][first : last + 1] = [bits & 15] * (last + 1 - first)
    sent = [depth for row in depths.values() for depth in row]
    return Gaps(parts=None in sent, detail=any(sent))


def frame_of(data: bytes) -> int | None:
    """The marker of the frame, which tells how its data are coded; None where there is none."""
    return next((marker for marker, _, _ in _segments(data) if marker in _FRAMES), None)


def without_profile(data: bytes) -> bytes:
    """The file without the segments in which profiles lie."""
    parts, kept_from = [], 0
    for marker, start, end in _segments(data):
        if marker == _SCAN:
            break
        if marker == _PROFILE:
            parts.append(data[kept_from:start])
            kept_from = end
    return b"".join([*parts, data[kept_from:]])


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(marker, start, end) of every segment up to the end marker; data of scans are passed over."""
    at = 0
    while (start := data.find(b"\xff", at)) >= 0 and start + 1 < len(data):
        marker, at = data[start + 1], start + 1
        if marker == _END:
            return
        if marker in _NO_MARKERS or marker == _START:
            continue
        at += 1 + max(int.from_bytes(data[at + 1 : at + 3], "big"), 2)
        yield marker, start, at
