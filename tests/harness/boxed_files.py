"""Changes what the boxes of JPEG 2000, AVIF and BMP files tell of their colours."""

from __future__ import annotations

import io
import struct

from PIL import Image


def with_colour_box(jp2: bytes, *bodies: bytes) -> bytes:
    """A JPEG 2000 file with these colour boxes in place of its own."""
    header = jp2.index(b"jp2h") - 4
    colour = jp2.index(b"colr") - 4
    (header_size,) = struct.unpack_from(">I", jp2, header)
    (colour_size,) = struct.unpack_from(">I", jp2, colour)
    stated = b"".join(struct.pack(">I4s", len(body) + 8, b"colr") + body for body in bodies)
    size = struct.pack(">I", header_size - colour_size + len(stated))
    return jp2[:header] + size + jp2[header + 4 : colour] + stated + jp2[colour + colour_size :]


def enumerated(code: int) -> bytes:
    """The body of a colour box that names a colour space by number."""
    return b"\x01\x00\x00" + struct.pack(">I", code)


def with_nclx(avif: bytes, primaries: int, transfer: int) -> bytes:
    """An AVIF file whose every nclx box says this of its colours."""
    parts = avif.split(b"nclx")
    codes = struct.pack(">HH", primaries, transfer)
    return parts[0] + b"".join(b"nclx" + codes + part[4:] for part in parts[1:])


def bmp_with_header(image: Image.Image, space: bytes, profile: bytes = b"") -> bytes:
    """A BMP file with a header of version 5 that states a colour space."""
    file = io.BytesIO()
    image.convert("RGB").save(file, "BMP")
    plain = file.getvalue()
    old, pixels = plain[14:54], plain[54:]
    header = struct.pack("<I", 124) + old[4:] + bytes(16) + space + bytes(36 + 12 + 4)
    header += struct.pack("<III", 124 + len(pixels), len(profile), 0)
    start = 14 + len(header)
    head = b"BM" + struct.pack("<IHHI", start + len(pixels) + len(profile), 0, 0, start)
    return head + header + pixels + profile
