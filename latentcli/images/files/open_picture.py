"""Opens a picture by the reader of its format, which its first bytes tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from PIL import (  # noqa: F401 - each plugin registers its format
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TgaImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from latentcli.core.errors import SampleError
from latentcli.core.first_bytes import described
from latentcli.images.files.avif import read_avif
from latentcli.images.files.bmp import read_bmp
from latentcli.images.files.heif import read_heif
from latentcli.images.files.jp2 import read_jp2
from latentcli.images.files.jpeg import read_jpeg
from latentcli.images.files.jxl import read_jxl
from latentcli.images.files.png import read_png
from latentcli.images.files.raw import read_raw
from latentcli.images.files.stored import Stored, read_plain
from latentcli.images.files.tiff import read_tiff
from latentcli.images.formats import format_of, picture_by_bytes

READERS: Mapping[str, Callable[[bytes], Stored]] = {
    ".jpg": read_jpeg,
    ".png": read_png,
    ".webp": partial(read_plain, plugin="WEBP"),
    ".avif": read_avif,
    ".gif": partial(read_plain, plugin="GIF"),
    ".bmp": read_bmp,
    ".tif": read_tiff,
    ".jp2": read_jp2,
    ".ppm": partial(read_plain, plugin="PPM"),
    ".heic": read_heif,
    ".jxl": read_jxl,
    ".dng": read_raw,
}
"""The suffix that stands for a format -> what reads it."""


def open_picture(data: bytes) -> Stored:
    """The header of a picture file; SampleError where it is damaged, or no picture that is read."""
    if not data:
        raise SampleError("decode_image", "file is empty (0 bytes)")
    suffix = picture_by_bytes(data)
    if suffix is not None and suffix in READERS:
        return READERS[suffix](data)
    row = format_of(suffix) if suffix else None
    if row is not None:
        raise SampleError(
            "decode_image", f"{row.name} pictures are not supported; convert it to PNG"
        )
    try:
        # It has no signature: anything may look like one.
        return read_plain(data, "TGA")
    except SampleError:
        raise SampleError("decode_image", f"not a picture: {described(data)}") from None
