"""Follows the block lengths of a video file to say what of it is missing or broken.

FFmpeg reads on where a file breaks off or holds garbage, so that a half clip looks like a whole
one. Here only the lengths of the blocks are followed, without reading what they hold.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple


class Fault(NamedTuple):
    """Why a clip is not whole."""

    state: str
    """"cut short" or "damaged"."""
    reason: str


def find_fault(path: str, container: str) -> Fault | None:
    """The first fault of the file, or None; `container` is FFmpeg's name of the format.

    MP4, Matroska, AVI, GIF and APNG state their lengths. A transport stream does not: only one
    that ends inside a packet is known to be cut. OSError where the file cannot be read.
    """
    check = _CHECKS.get(container)
    if check is None:
        return None
    with Path(path).open("rb") as file:
        return check(file, os.fstat(file.fileno()).st_size)


def _short(promised: int, size: int) -> Fault:
    return Fault(
        "cut short", f"the file has {size:,} of the {promised:,} bytes that its header states"
    )


def _no_end(size: int) -> Fault:
    return Fault("cut short", f"the file has no end mark after its {size:,} bytes")


def _garbage(position: int) -> Fault:
    return Fault("damaged", f"there is no valid block at byte {position:,} of the file")


def _at(file: BinaryIO, position: int, count: int) -> bytes:
    file.seek(position)
    return file.read(count)


def _mp4(file: BinaryIO, size: int) -> Fault | None:
    position = 0
    while position + 8 <= size:
        head = _at(file, position, 16).ljust(16, b"\0")
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:], "big")
        if length == 0:  # the last box, up to the end of the file, however long that is
            return None
        if length < 8:
            return _garbage(position)
        position += length
    return _short(position, size) if position > size else None


def _avi(file: BinaryIO, size: int) -> Fault | None:
    position = 0
    while (head := _at(file, position, 8))[:4] == b"RIFF" and len(head) == 8:
        length = struct.unpack_from("<I", head, 4)[0]
        if length == 0:  # a recorder that never came to the end
            return None
        position += 8 + length + length % 2
    # The last byte may be padding that was left out.
    return _short(position, size) if position > size + 1 else None


_EBML, _SEGMENT, _CLUSTER = 0x1A45DFA3, 0x18538067, 0x1F43B675
_OPENED = (_SEGMENT, _CLUSTER)
# fmt: off
_ELEMENTS = frozenset((
    # A segment's: seek head, info, tracks, cues, attachments, chapters, tags.
    0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1C53BB6B, 0x1941A469, 0x1043A770, 0x1254C367,
    # A cluster's: time, position, size before, block, block group, silent and encrypted blocks.
    0xE7, 0xA7, 0xAB, 0xA3, 0xA0, 0x5854, 0xAF,
    # Anyone's: void, checksum.
    0xEC, 0xBF, _EBML, _SEGMENT, _CLUSTER,
))
# fmt: on


def _matroska(file: BinaryIO, size: int) -> Fault | None:
    """RFC 8794: an element is its id, its length, and its content."""
    position = end = 0
    while position < size:
        head = _at(file, position, 12)
        split = 9 - head[0].bit_length()
        element, rest = int.from_bytes(head[:split], "big"), head[split:]
        if element not in _ELEMENTS or not rest:
            return _short(end, size) if end > size else _garbage(position)
        length_bytes = 9 - rest[0].bit_length()
        unknown = (1 << 7 * length_bytes) - 1
        length = int.from_bytes(rest[:length_bytes], "big") & unknown
        position += split + length_bytes
        if element not in _OPENED:
            position += length
        elif length != unknown:
            end = max(end, position + length)
    end = max(end, position)
    return _short(end, size) if end > size else None


def _gif(file: BinaryIO, size: int) -> Fault | None:
    head = file.read(13)
    file.seek(_palette(head[10]), os.SEEK_CUR)
    while mark := file.read(1):
        position = file.tell() - 1
        if mark == b"\x3b":
            return None
        if mark == b"\x21":
            file.read(1)
        elif mark == b"\x2c":
            descriptor = file.read(9)
            file.seek(_palette(descriptor[8]) + 1 if len(descriptor) == 9 else 0, os.SEEK_CUR)
        else:
            return _garbage(position)
        while (count := file.read(1)) > b"\0":
            file.seek(count[0], os.SEEK_CUR)
    return _no_end(size)


def _palette(flags: int) -> int:
    """Bytes of the colour table that the flags announce."""
    return 3 * 2 ** (flags % 8 + 1) if flags & 0x80 else 0


def _png(file: BinaryIO, size: int) -> Fault | None:
    position = 8
    while len(head := _at(file, position, 8)) == 8:
        position += 12 + int.from_bytes(head[:4], "big")
        if head[4:] == b"IEND":
            return _short(position, size) if position > size else None
    return _no_end(size)


def _transport(file: BinaryIO, size: int) -> Fault | None:
    # Plain packets, packets with a time before them, and packets with a checksum after them.
    for packet, sync in ((188, 0), (192, 4), (204, 0)):
        if _at(file, sync, 1) == _at(file, sync + packet, 1) == b"\x47":
            whole = size % packet == 0
            return None if whole else Fault("cut short", f"its {size:,} bytes end inside a packet")
    return None


_CHECKS: dict[str, Callable[[BinaryIO, int], Fault | None]] = {
    "mov,mp4,m4a,3gp,3g2,mj2": _mp4,
    "matroska,webm": _matroska,
    "avi": _avi,
    "gif": _gif,
    "apng": _png,
    "mpegts": _transport,
}
