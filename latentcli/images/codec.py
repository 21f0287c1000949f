"""Decodes picture files to 8-bit sRGB and encodes them, with every policy for unusual ones.

Pillow reads the files. Its size limit is a process-wide setting that warns before it refuses, so
the limit here is checked on the header of each file, before any pixel is decoded.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import (  # noqa: F401 - each plugin registers its format
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageCms,
    ImageFile,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TgaImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)
from torch import Tensor

from latentcli.core.errors import SampleError, UsageError
from latentcli.images.colour import ALPHAS, put_on, split_alpha, to_srgb
from latentcli.images.formats import IMAGE_SUFFIXES as IMAGE_SUFFIXES

SUFFIX_OF = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}
"""Suffix of each format that `encode_image` writes."""

# TGA is last because it has no signature: anything may look like one.
_FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "JPEG2000", "PPM", "TGA")

_LOOKS_LIKE: tuple[tuple[bytes, str], ...] = (
    (b"<!doctype html", "an HTML page"),
    (b"<html", "an HTML page"),
    (b"<svg", "an SVG drawing"),
    (b"<?xml", "an XML document"),
    (b"version https://git-lfs", "a Git LFS pointer, whose real file was not fetched"),
    (b"%pdf", "a PDF document"),
    (b"pk\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip file"),
    (b"8bps", "a Photoshop document"),
    (b"\xff\x0a", "a JPEG XL picture, a format that is not supported"),
    (b"\x00\x00\x00\x0cjxl ", "a JPEG XL picture, a format that is not supported"),
    (b"riff", "a RIFF file such as WAV or AVI"),
    (b"{", "a JSON document"),
)

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


# Pillow reads 16-bit colour by taking the first byte of two; told the other byte order, it takes
# the second. LA;16B fills the four bytes of RGBA, so there all of them come at once.
_SECOND_BYTES = {
    "RGB;16B": "RGB;16L",
    "RGB;16L": "RGB;16B",
    "RGB;16N": "RGB;16B" if sys.byteorder == "little" else "RGB;16L",
    "RGBA;16B": "RGBA;16L",
    "RGBA;16L": "RGBA;16B",
    "RGBA;16N": "RGBA;16B" if sys.byteorder == "little" else "RGBA;16L",
    "LA;16B": "RGBA",
}

_SAVE_OPTIONS: dict[str, Callable[[int], dict[str, Any]]] = {
    # Level 2 takes half the time of level 4, for files a tenth larger.
    "png": lambda quality: {"compress_level": 2},
    "jpeg": lambda quality: {"quality": quality, "subsampling": 0 if quality >= 90 else 2},
    "webp": lambda quality: (
        {"quality": quality, "method": 4} if quality < 100 else {"lossless": True, "quality": 50}
    ),
}
_MAX_SIDE = {"png": 2**31 - 1, "jpeg": 65500, "webp": 16383}

_TIFF_BITS, _TIFF_PHOTOMETRIC, _EXIF_ORIENTATION = 258, 262, 0x0112


@dataclass(frozen=True, slots=True)
class DecodePolicy:
    """What `decode_image` does where a file leaves a choice."""

    alpha: str = "white"
    """A key of ALPHAS."""
    max_pixels: int = 89_478_485
    """Pictures with more pixels are refused before they are decoded. Above 178,956,970, Pillow
    itself still refuses TIFF and WebP."""

    def __post_init__(self) -> None:
        if self.alpha not in ALPHAS:
            raise UsageError(f"alpha is {self.alpha!r}; allowed are {', '.join(ALPHAS)}")
        if self.max_pixels < 1:
            raise UsageError(f"max pixels is {self.max_pixels}; it must be at least 1")


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """One picture as a person sees it."""

    image: Image.Image
    """Mode RGB, sRGB, upright."""
    original_size: tuple[int, int]
    """(W, H) of `image`, so after orientation."""
    notes: tuple[str, ...]
    """What a policy did, in the order of the work."""


def decode_image(data: bytes, policy: DecodePolicy) -> DecodedImage:
    """Bytes of one file to an upright 8-bit sRGB picture; SampleError where that cannot be.

    16-bit values v become v * 255 / 65535, rounded. Embedded colour profiles are converted to sRGB
    (relative colorimetric with black point compensation), then alpha is composited in sRGB. Files
    with several frames give the first one. Half a picture is never returned.
    """
    opened = _open(data)
    check_pixels("picture is", opened.size, policy.max_pixels)
    notes: list[str] = []
    try:
        image = _load(opened, data, notes)
        colour, alpha = split_alpha(image)
        profile = opened.info.get("icc_profile")
        rgb = to_srgb(colour, profile, notes)
        rgb = put_on(rgb, alpha, policy.alpha, notes)
        rgb = _turn(rgb, opened, notes)
    except SampleError:
        raise
    except Exception as error:  # a damaged file makes Pillow raise almost any kind
        raise SampleError("decode_image", _damage(opened.format, error)) from error
    return DecodedImage(rgb, rgb.size, tuple(notes))


def _open(data: bytes) -> ImageFile.ImageFile:
    # Image.open would apply Pillow's own size limit and print its warning.
    if not data:
        raise SampleError("decode_image", "file is empty (0 bytes)")
    for name in _FORMATS:
        factory, accept = Image.OPEN[name]
        verdict = accept(data[:16]) if accept else True
        if isinstance(verdict, str) or not verdict:
            continue
        try:
            return factory(io.BytesIO(data), "")
        except Exception as error:
            if accept:
                raise SampleError("decode_image", _damage(name, error)) from error
    raise SampleError("decode_image", f"not a picture: {_describe(data)}")


def check_pixels(what: str, size: tuple[int, int], most: int) -> None:
    """SampleError where a picture or frame of `size` (W, H) has more than `most` pixels."""
    width, height = size
    if width * height > most:
        raise SampleError(
            "decode_image",
            f"{what} {width}x{height}, {width * height:,} pixels; the limit is"
            f" {most:,} (--max-pixels raises it)",
        )


def _damage(name: str | None, error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombError):
        return f"{name} picture is larger than Pillow decodes: {error}"
    text = str(error) or type(error).__name__
    state = "cut short" if "truncated" in text.lower() else "damaged or of an unsupported kind"
    return f"{name} file is {state} ({text})"


def _describe(data: bytes) -> str:
    head = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for prefix, name in _LOOKS_LIKE:
        if head.startswith(prefix):
            return f"it looks like {name}"
    if data[4:8] == b"ftyp":
        return f"it looks like a HEIC picture or a video ({data[8:12]!r}), which is not supported"
    if not any(data[:4096]):
        return "it begins with nothing but zero bytes"
    if data[:64].isascii() and data[:64].decode().replace("\n", " ").strip().isprintable():
        return f"it looks like text ({data[:32].decode()!r})"
    return f"it begins with the bytes {data[:8].hex(' ')}"


def _load(opened: ImageFile.ImageFile, data: bytes, notes: list[str]) -> Image.Image:
    """All pixels of the first frame, 8 bits a channel."""
    if opened.format == "TIFF" and (turn := _orientation(opened)) in _TURNS:
        # Pillow turns a TIFF while it loads, and forgets the tag.
        notes.append(f"orientation {turn} applied")
    if getattr(opened, "is_animated", False):
        notes.append("first of several frames")
    wide = _wide_colour(opened, data)
    opened.load()
    if wide is None and opened.mode[0] in "IF":
        wide = _wide_grey(opened)
    if wide is None:
        return opened
    notes.append(f"{'float' if opened.mode == 'F' else '16-bit'} values to 8-bit")
    return _narrow(wide, opened.info.get("transparency"))


def _wide_colour(opened: ImageFile.ImageFile, data: bytes) -> npt.NDArray[Any] | None:
    """uint16 [H, W, 2 to 4] of a 16-bit colour picture that is not loaded yet, or None."""
    # A tile's arguments are its raw mode, or a tuple that begins with it.
    args = [(t.args,) if isinstance(t.args, str) else t.args or ("",) for t in opened.tile]
    rawmode = args[0][0] if args else ""
    if rawmode not in _SECOND_BYTES:
        return None
    twin = _open(data)
    twin.tile = [
        tile._replace(args=(_SECOND_BYTES[rawmode], *rest))
        for tile, (_, *rest) in zip(twin.tile, args, strict=True)
    ]
    first, second = np.asarray(opened), np.asarray(twin)
    if rawmode == "LA;16B":
        first, second = second[..., 0::2], second[..., 1::2]
    wide: npt.NDArray[Any] = first.astype(np.uint16)
    wide <<= 8
    wide |= second
    return wide


def _wide_grey(opened: Image.Image) -> npt.NDArray[Any]:
    """Grey of modes I;16, I and F as 16-bit values, where it is known which value is white."""
    values = np.asarray(opened)
    top, name = (1, "float") if opened.mode == "F" else (65535, "32-bit integer")
    low, high = values.min().item(), values.max().item()
    if not (low >= 0 and high <= top):
        raise SampleError(
            "decode_image",
            f"{name} picture holds values from {low:g} to {high:g}; allowed are 0 to {top}, "
            "because nothing in the file says which value is white; convert it to 8 or 16 bits",
        )
    if opened.mode == "F":
        values = values * 65535 + 0.5
    tags = getattr(opened, "tag_v2", {})
    if tags.get(_TIFF_BITS) == (12,):
        values = (values.astype(np.uint32) * 65535 + 2047) // 4095
    values = values.astype(np.uint16)
    return 65535 - values if tags.get(_TIFF_PHOTOMETRIC) == 0 else values


def _narrow(wide: npt.NDArray[Any], key: Any) -> Image.Image:
    """uint16 [H, W] or [H, W, C] to 8 bits; pixels equal to `key` become transparent."""
    narrow = np.empty(wide.shape, np.uint8)
    # Row by row: of a large picture, 32 bits a value would take gigabytes.
    for row, values in zip(narrow, wide, strict=True):
        row[...] = (values.astype(np.uint32) + 128) // 257
    image = Image.fromarray(narrow)
    if key is not None and image.mode in ("L", "RGB"):
        opaque = (wide != np.asarray(key)).reshape(*wide.shape[:2], -1).any(axis=2)
        image.putalpha(Image.fromarray(opaque.astype(np.uint8) * 255))
    return image


def _turn(rgb: Image.Image, opened: ImageFile.ImageFile, notes: list[str]) -> Image.Image:
    orientation = _orientation(opened)
    if orientation not in _TURNS:
        return rgb
    notes.append(f"orientation {orientation} applied")
    return rgb.transpose(_TURNS[orientation])


def _orientation(opened: ImageFile.ImageFile) -> int:
    try:
        value = opened.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # broken EXIF says nothing about the picture, and Pillow raises many kinds
        return 1
    return value if isinstance(value, int) else 1


def encode_image(pixels: Tensor, format: str, quality: int = 95) -> bytes:
    """uint8 [3, H, W] sRGB to the bytes of a file; equal input gives equal bytes.

    `format` is a key of SUFFIX_OF. `quality` is 1 to 100: JPEG keeps full colour resolution from
    90, WebP is lossless at 100, PNG always is. UsageError for another format or quality,
    SampleError where the format cannot hold a picture so large.
    """
    if format not in SUFFIX_OF:
        raise UsageError(f"image format is {format!r}; allowed are {', '.join(SUFFIX_OF)}")
    if not 1 <= quality <= 100:
        raise UsageError(f"quality is {quality}; allowed are 1 to 100")
    if pixels.dtype != torch.uint8 or pixels.ndim != 3 or pixels.shape[0] != 3:
        raise ValueError(f"pixels are {pixels.dtype} {tuple(pixels.shape)}, not uint8 [3, H, W]")
    height, width = pixels.shape[1:]
    if max(height, width) > _MAX_SIDE[format]:
        raise SampleError(
            "encode_image",
            f"picture is {width}x{height}; {format} holds at most {_MAX_SIDE[format]} pixels a side"
            " (use png)",
        )
    image = Image.fromarray(pixels.permute(1, 2, 0).contiguous().cpu().numpy())
    file = io.BytesIO()
    image.save(file, format, **_SAVE_OPTIONS[format](quality))
    return file.getvalue()


def to_uint8(images: Tensor) -> Tensor:
    """Float [..., 3, H, W] in [-1, 1] to uint8: clamped, then (x + 1) * 127.5 rounded half up.

    Any device; NaN becomes 0.
    """
    levels = images.float().nan_to_num(nan=-1.0).clamp(-1, 1).add(1).mul(127.5)
    return levels.add(0.5).floor().to(torch.uint8)


def to_float(pixels: Tensor) -> Tensor:
    """uint8 [..., 3, H, W] to float32 in [-1, 1]; `to_uint8` gives exactly the same pixels back."""
    return pixels.to(torch.float32) / 127.5 - 1
