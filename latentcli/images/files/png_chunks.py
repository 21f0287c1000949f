"""Reads the chunks of a PNG file that tell its colours, and leaves out those that tell no pixels.

Pillow unpacks texts and profiles while it reads pixels, and refuses the picture where one of them
is large. Here texts are not unpacked, but for one that may hold the orientation, and everything
that is unpacked has a bound.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

SIGNATURE = b"\x89PNG\r\n\x1a\n"

# Critical chunks, whose first letter is a capital, are all kept.
_KEPT = frozenset((b"tRNS", b"eXIf", b"acTL", b"fcTL", b"fdAT"))
_COLOUR = frozenset((b"cICP", b"iCCP", b"sRGB", b"gAMA", b"cHRM"))
_TEXT = frozenset((b"tEXt", b"zTXt", b"iTXt"))
_MAY_TURN = (b"XML:com.adobe.xmp", b"Raw profile type exif")
_MOST_TEXT = 2**20


@dataclass(frozen=True, slots=True)
class PngChunks:
    """A PNG file taken apart."""

    colour: Mapping[bytes, bytes]
    """The first chunk of each kind that tells of colours; those whose checksum is wrong are not."""
    plain: bytes
    """The file without what is not needed for its pixels."""


def read_chunks(data: bytes) -> PngChunks:
    """Takes a PNG file apart; where its chunks make no sense, the rest is in `plain` as it is."""
    colour: dict[bytes, bytes] = {}
    parts, kept_from = [], 0
    turning = list(_MAY_TURN)
    for kind, start, end in _chunks(data):
        body = memoryview(data)[start + 8 : end - 4]
        if kind in _COLOUR and _is_sound(data, start, end):
            colour.setdefault(kind, bytes(body))
        if (
            kind[:1].isupper()
            or kind in _KEPT
            or (kind in _TEXT and _may_turn(kind, body, turning))
        ):
            continue
        parts.append(data[kept_from:start])
        kept_from = end
    return PngChunks(colour, b"".join([*parts, data[kept_from:]]) if parts else data)


def unpack(packed: bytes, most: int) -> bytes | None:
    """What zlib packed; None where that is damaged or has more than `most` bytes."""
    unpacker = zlib.decompressobj()
    try:
        unpacked = unpacker.decompress(packed, most + 1)
    except zlib.error:
        return None
    return unpacked if unpacker.eof and len(unpacked) <= most else None


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(kind, start, end) of every whole chunk, up to the end or to what is none."""
    at = len(SIGNATURE)
    while at + 12 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        if not kind.isalpha() or at + 12 + size > len(data):
            return
        yield kind, at, at + 12 + size
        at += 12 + size


def _is_sound(data: bytes, start: int, end: int) -> bool:
    return zlib.crc32(data[start + 4 : end - 4]) == int.from_bytes(data[end - 4 : end], "big")


def _may_turn(kind: bytes, body: memoryview, wanted: list[bytes]) -> bool:
    """Whether a text is the first of those in which programs store EXIF or its orientation.

    It is struck off `wanted`. One that is large, or becomes so, is not looked at.
    """
    keyword, _, rest = bytes(body[:_MOST_TEXT]).partition(b"\x00")
    if keyword not in wanted or len(body) > _MOST_TEXT:
        return False
    packed = rest[1:] if kind == b"zTXt" else b""
    if kind == b"iTXt" and rest[:1] != b"\x00":
        packed = rest[2:].split(b"\x00", 2)[-1]
    if packed and unpack(packed, _MOST_TEXT - 1) is None:
        return False
    wanted.remove(keyword)
    return True
