"""Writes TIFF files of kinds that no library here writes: planes apart, and camera RAW."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence

import numpy as np

Value = int | Sequence[int] | Sequence[tuple[int, int]] | bytes

GREY, RGB, INKS, LAB, SENSOR = 1, 2, 5, 8, 32803
STRAIGHT, PREMULTIPLIED = 2, 1


def planes(
    values: np.ndarray,
    kind: int = RGB,
    *,
    order: str = "<",
    deflate: bool = False,
    rows: int = 16,
    tags: Mapping[int, Value] | None = None,
) -> bytes:
    """uint8, uint16 or float32 [H, W, C] with each channel in strips of its own."""
    height, width, count = values.shape
    bits = values.dtype.itemsize * 8
    strips = [
        values[top : top + rows, :, channel].astype(values.dtype.newbyteorder(order)).tobytes()
        for channel in range(count)
        for top in range(0, height, rows)
    ]
    if deflate:
        strips = [zlib.compress(strip) for strip in strips]
    return directory(
        {
            256: width,
            257: height,
            258: [bits] * count,
            259: 8 if deflate else 1,
            262: kind,
            277: count,
            278: rows,
            284: 2,
            339: [3 if values.dtype.kind == "f" else 1] * count,
            **(tags or {}),
        },
        strips,
        order,
    )


def camera_raw(sensor: np.ndarray, tags: Mapping[int, Value] | None = None) -> bytes:
    """uint16 [H, W] of a sensor with rows RGRG and GBGB as an uncompressed DNG file."""
    height, width = sensor.shape
    # The camera's colours are those of linear sRGB: XYZ to camera is the inverse of its matrix.
    to_camera = [32406, -15372, -4986, -9689, 18758, 415, 557, -2040, 10570]
    return directory(
        {
            254: 0,
            256: width,
            257: height,
            258: 16,
            259: 1,
            262: SENSOR,
            271: b"Nobody\x00",
            272: b"Test camera\x00",
            277: 1,
            278: height,
            284: 1,
            33421: [2, 2],
            33422: bytes([0, 1, 1, 2]),
            50706: bytes([1, 4, 0, 0]),
            50708: b"Nobody Test camera\x00",
            50714: 0,
            50717: 65535,
            50721: [(value, 10000) for value in to_camera],
            50728: [(1, 1)] * 3,
            50778: 21,
            **(tags or {}),
        },
        [sensor.astype("<u2").tobytes()],
    )


def directory(tags: Mapping[int, Value], strips: Sequence[bytes], order: str = "<") -> bytes:
    """A TIFF file of one page; the directory comes first, as cameras write it."""
    sizes = [len(strip) for strip in strips]
    head = _directory({**tags, 273: sizes, 279: sizes}, order)
    offsets = [len(head) + sum(sizes[:i]) for i in range(len(strips))]
    return _directory({**tags, 273: offsets, 279: sizes}, order) + b"".join(strips)


def _directory(entries: Mapping[int, Value], order: str) -> bytes:
    after, table, beyond = 8 + 2 + 12 * len(entries) + 4, b"", b""
    for tag in sorted(entries):
        kind, count, packed = _packed(tag, entries[tag], order)
        table += struct.pack(f"{order}HHI", tag, kind, count)
        if len(packed) <= 4:
            table += packed.ljust(4, b"\x00")
        else:
            table += struct.pack(f"{order}I", after + len(beyond))
            beyond += packed + bytes(len(packed) % 2)
    magic = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8)
    return magic + struct.pack(f"{order}H", len(entries)) + table + bytes(4) + beyond


def _packed(tag: int, value: Value, order: str) -> tuple[int, int, bytes]:
    """(type, count, bytes): text, bytes, fractions, 32-bit or 16-bit integers."""
    if isinstance(value, bytes):
        return {271: 2, 272: 2, 50708: 2, 34675: 7}.get(tag, 1), len(value), value
    values = np.atleast_1d(value)
    if values.ndim == 2:
        return 10, len(values), values.astype(f"{order}i4").tobytes()
    kind, letter = (4, "u4") if tag in (273, 279) or values.max() > 65535 else (3, "u2")
    return kind, len(values), values.astype(f"{order}{letter}").tobytes()
