"""Makes picture files of every awkward kind, some of which no library here can write."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

# Primaries as XYZ under D50, columns R, G, B.
SRGB_D50 = np.array(
    [[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]]
)
P3_D50 = np.array(
    [[0.51512, 0.29198, 0.15710], [0.24120, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]]
)


def scene(width: int = 96, height: int = 64) -> np.ndarray:
    """A smooth colourful uint8 [H, W, 3] picture with no symmetry."""
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    channels = [np.sin(3 * x + y), np.cos(5 * y * x + 1), np.sin(7 * x * y + 2 * y)]
    return np.round(127.5 + 120 * np.stack(channels, axis=-1)).astype(np.uint8)


def save(image: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def png(values: np.ndarray, colour_type: int, bits: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """[H, W] or [H, W, C] integers as a PNG of that colour type; `chunks` come before the data."""
    height, width = values.shape[:2]
    rows = values.reshape(height, -1).astype(">u2" if bits == 16 else "u1")
    data = b"".join(b"\x00" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(data)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*part) for part in parts)


def bomb_png(width: int, height: int) -> bytes:
    """A PNG of under 100 bytes that claims to be huge."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\x00")), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*part) for part in parts)


def rgb_profile(primaries: np.ndarray, name: str, gamma: float | None = None) -> bytes:
    """A matrix profile with the sRGB tone curve, or that of a gamma."""
    curve = (
        b"para"
        + struct.pack(">IHH", 0, 3, 0)
        + _fixed(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
    )
    if gamma is not None:
        curve = _gamma(gamma)
    columns = {f"{c}XYZ".encode(): _xyz(*primaries[:, i]) for i, c in enumerate("rgb")}
    curves = {f"{c}TRC".encode(): curve for c in "rgb"}
    return _profile(b"mntr", b"RGB ", b"XYZ ", name, {**columns, **curves})


def grey_profile(gamma: float, name: str) -> bytes:
    return _profile(b"mntr", b"GRAY", b"XYZ ", name, {b"kTRC": _gamma(gamma)})


def cmyk_profile(lab_of_inks: np.ndarray, name: str) -> bytes:
    """Lab [16, 3] of every combination of full inks (K changes fastest), as a one-table profile."""
    ramp = bytes(range(256))
    coded = np.round(lab_of_inks * [2.55, 1, 1] + [0, 128, 128]).astype(np.uint8).tobytes()
    table = (
        b"mft1"
        + struct.pack(">IBBBB", 0, 4, 3, 2, 0)
        + _fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
        + ramp * 4
        + coded
        + ramp * 3
    )
    # Yellowish paper, which a relative rendering shows as white.
    tags = {b"A2B0": table, b"A2B1": table, b"wtpt": _xyz(0.85, 0.88, 0.6)}
    return _profile(b"scnr", b"CMYK", b"Lab ", name, tags)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _fixed(*values: float) -> bytes:
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def _gamma(gamma: float) -> bytes:
    return b"para" + struct.pack(">IHH", 0, 0, 0) + _fixed(gamma)


def _xyz(*values: float) -> bytes:
    return b"XYZ " + bytes(4) + _fixed(*values)


def _text(text: str) -> bytes:
    coded = text.encode("utf-16-be")
    return b"mluc" + struct.pack(">III2s2sII", 0, 1, 12, b"en", b"US", len(coded), 28) + coded


def _profile(
    kind: bytes, space: bytes, connection: bytes, name: str, tags: dict[bytes, bytes]
) -> bytes:
    """An ICC profile, version 4 (ICC.1:2010 sections 7 and 9)."""
    d50 = (0.9642, 1.0, 0.8249)
    tags = {b"desc": _text(name), b"cprt": _text("none"), b"wtpt": _xyz(*d50), **tags}
    offset, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for tag, data in tags.items():
        data += bytes(-len(data) % 4)
        table += tag + struct.pack(">II", offset + len(body), len(data))
        body += data
    size = offset + len(body)
    header = struct.pack(">I4sI4s4s4s", size, bytes(4), 0x04200000, kind, space, connection)
    header += bytes(12) + b"acsp" + bytes(28) + _fixed(*d50)
    return header.ljust(128, b"\x00") + struct.pack(">I", len(tags)) + table + body
