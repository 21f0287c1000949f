"""Reads TIFF files whose planes lie apart, each plane as a grey picture of its own.

Pillow takes one byte of each value of such planes, whatever their bits and the order of the bits.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from latentcli.core.errors import SampleError
from latentcli.images.files.stored import Pixels, open_with_pillow, pixels_of
from latentcli.images.wide import Wide, straight_alpha

Tags = Mapping[int, Any]
"""Tag -> its value, or a tuple of several."""

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _KIND, _FILL_ORDER = 256, 257, 258, 259, 262, 266
_STRIPS, _SAMPLES, _ROWS, _STRIP_BYTES, _PLANES, _PREDICTOR = 273, 277, 278, 279, 284, 317
_TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES = 322, 323, 324, 325
_EXTRA, _FORMAT, _JPEG_TABLES = 338, 339, 347

_SHARED = (_WIDTH, _HEIGHT, _COMPRESSION, _FILL_ORDER, _ROWS, _PREDICTOR, _TILE_WIDTH, _TILE_HEIGHT)
"""Tags that a plane has in common with its picture."""

_GREY, _RGB, _INKS, _YCBCR = 1, 2, 5, 6
_MODES = {(_GREY, False): "L", (_GREY, True): "LA", (_RGB, False): "RGB", (_RGB, True): "RGBA"}
_MODES |= {(_INKS, False): "CMYK"}
_PREMULTIPLIED, _ALPHAS = 1, (1, 2)


def has_planes_apart(tags: Tags) -> bool:
    """Whether each channel lies in a plane of its own. Those of YCbCr are Pillow's to read."""
    return tags.get(_PLANES, 1) == 2 and tags.get(_SAMPLES, 1) > 1 and tags.get(_KIND) != _YCBCR


def merge_planes(tags: Tags, data: bytes) -> Pixels:
    """All channels together, not yet upright; SampleError for colours that are not read."""
    kind, extra = tags.get(_KIND), tags.get(_EXTRA, ())
    has_alpha = kind != _INKS and bool(extra) and extra[0] in _ALPHAS
    mode = _MODES.get((int(kind or 0), has_alpha))
    if mode is None:
        raise _refusal("colours that are not grey, RGB or CMYK")
    if len(mode) > tags[_SAMPLES]:
        raise _refusal("fewer planes than its colours need")
    planes = [_plane(tags, data, index) for index in range(len(mode))]
    narrow = [np.asarray(plane) for plane in planes if isinstance(plane, Image.Image)]
    wide = [plane.values for plane in planes if isinstance(plane, Wide)]
    if narrow and wide:
        raise _refusal("planes of different depths")
    values = np.stack(narrow or wide, axis=-1)
    if has_alpha and extra[0] == _PREMULTIPLIED:
        values = straight_alpha(values)
    if narrow:
        return Image.fromarray(values, mode)
    if mode == "CMYK":
        return Image.fromarray((values >> 8).astype(np.uint8), mode)
    return Wide(values, next(plane.note for plane in planes if isinstance(plane, Wide)))


def _refusal(what: str) -> SampleError:
    return SampleError(
        "decode_image",
        f"TIFF file stores its channels as separate planes and has {what}; save it with its"
        " channels interleaved",
    )


def _plane(tags: Tags, data: bytes, index: int) -> Pixels:
    """One plane in 8 or 16 bits, as the one channel of a grey picture."""
    opened = open_with_pillow(_grey_file(tags, data, index), "TIFF")
    opened.load()
    pixels = pixels_of(opened)
    if isinstance(pixels, Image.Image):
        return pixels.convert("L")
    bits = _of_plane(tags.get(_BITS), index)
    if bits == 12:
        values = (pixels.values.astype(np.uint32) * 65535 + 2047) // 4095
        return Wide(values.astype(np.uint16), pixels.note)
    return pixels


def _grey_file(tags: Tags, data: bytes, index: int) -> bytes:
    """A TIFF file of one plane: a header, its strips or tiles as they are, and a directory."""
    order = "<" if data[:2] == b"II" else ">"
    where, size = (_TILES, _TILE_BYTES) if _TILES in tags else (_STRIPS, _STRIP_BYTES)
    count = len(tags[where]) // tags[_SAMPLES]
    pieces = slice(index * count, (index + 1) * count)
    starts, sizes = tags[where][pieces], tags[size][pieces]
    if sum(sizes) > len(data):
        raise _refusal("more bytes in its strips than there are")
    strips = [data[start : start + length] for start, length in zip(starts, sizes, strict=True)]
    if sum(map(len, strips)) < sum(sizes):
        raise ValueError("truncated: strips are missing")
    offsets = [8 + sum(map(len, strips[:i])) for i in range(count)]
    entries: dict[int, bytes | Sequence[int]] = {t: (tags[t],) for t in _SHARED if t in tags}
    entries |= {
        _KIND: (1,),
        _SAMPLES: (1,),
        _PLANES: (1,),
        where: offsets,
        size: list(map(len, strips)),
    }
    entries |= {t: (_of_plane(tags[t], index),) for t in (_BITS, _FORMAT) if t in tags}
    if _JPEG_TABLES in tags:
        entries[_JPEG_TABLES] = tags[_JPEG_TABLES]
    body = b"".join(strips)
    body += bytes(len(body) % 2)
    head = data[:2] + struct.pack(f"{order}HI", 42, 8 + len(body))
    return head + body + _directory(entries, order, 8 + len(body))


def _of_plane(values: Any, index: int) -> int:
    """The value of one plane, of a tag that states one for each, or one for all."""
    return int(values[min(index, len(values) - 1)]) if isinstance(values, tuple) else int(values)


def _directory(entries: Mapping[int, bytes | Sequence[int]], order: str, at: int) -> bytes:
    """A TIFF directory that will lie at byte `at`; every number in it takes 4 bytes."""
    table, beyond = b"", b""
    after = at + 2 + 12 * len(entries) + 4
    for tag, value in sorted(entries.items()):
        is_bytes = isinstance(value, bytes)
        packed = value if isinstance(value, bytes) else struct.pack(f"{order}{len(value)}I", *value)
        table += struct.pack(f"{order}HHI", tag, 7 if is_bytes else 4, len(value))
        if len(packed) <= 4:
            table += packed.ljust(4, b"\x00")
        else:
            table += struct.pack(f"{order}I", after + len(beyond))
            beyond += packed + bytes(len(packed) % 2)
    return struct.pack(f"{order}H", len(entries)) + table + bytes(4) + beyond
