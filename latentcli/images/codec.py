"""Decodes picture files to 8-bit sRGB and encodes them, with every policy for unusual ones.

Pillow's size limit is a process-wide setting that warns before it refuses, so the limit here is
checked on the header of each file, before any pixel is decoded.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from latentcli.core.errors import SampleError, UsageError
from latentcli.core.mark import MADE_BY
from latentcli.images.colour import ALPHAS, put_on, split_alpha, to_eight_bits, to_srgb
from latentcli.images.files.open_picture import open_picture
from latentcli.images.files.stored import SIDEWAYS, Stored, damage
from latentcli.images.reduction import FACTORS, Reduction
from latentcli.images.rgb import Rgb, image_of, size_of
from latentcli.images.size_filter import NO_FILTER, SizeFilter
from latentcli.images.wide import Wide

SUFFIX_OF = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}
"""Suffix of each format that `encode_image` writes."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


_SAVE_OPTIONS: dict[str, Callable[[int], dict[str, Any]]] = {
    # Level 2 takes half the time of level 4, for files a tenth larger.
    "png": lambda quality: {"compress_level": 2},
    "jpeg": lambda quality: {"quality": quality, "subsampling": 0 if quality >= 90 else 2},
    "webp": lambda quality: (
        {"quality": quality, "method": 4} if quality < 100 else {"lossless": True, "quality": 50}
    ),
}
_QUICK = {"quality": 0, "method": 0}
"""Lossless WebP in a twentieth of the time, a tenth larger."""
_MAX_SIDE = {"png": 2**31 - 1, "jpeg": 65500, "webp": 16383}

_SOFTWARE = 305
"""The EXIF tag of the program."""


@dataclass(frozen=True, slots=True)
class DecodePolicy:
    """What `decode_image` does where a file leaves a choice."""

    alpha: str = "white"
    """A key of ALPHAS."""
    max_pixels: int = 89_478_485
    """Pictures with more pixels are refused before they are decoded. Above 178,956,970, Pillow
    itself still refuses TIFF and WebP."""
    sizes: SizeFilter = NO_FILTER
    """Pictures of other sizes are refused too; that is no failure."""

    def __post_init__(self) -> None:
        if self.alpha not in ALPHAS:
            raise UsageError(f"alpha is {self.alpha!r}; allowed are {', '.join(ALPHAS)}")
        if self.max_pixels < 1:
            raise UsageError(f"max pixels is {self.max_pixels}; it must be at least 1")


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """One picture as a person sees it."""

    rgb: Rgb
    """sRGB, upright."""
    original_size: tuple[int, int]
    """(W, H) of the whole picture after orientation; that of `rgb`, unless it is a reduction."""
    notes: tuple[str, ...]
    """What a policy did, in the order of the work."""

    @property
    def image(self) -> Image.Image:
        """`rgb` as Pillow's image."""
        return image_of(self.rgb)


def decode_image(
    data: bytes, policy: DecodePolicy, reduction: Reduction | None = None
) -> DecodedImage:
    """Bytes of one file to an upright 8-bit sRGB picture; SampleError where that cannot be,
    Filtered where the policy does not want it: then no pixel was decoded.

    What the file is, its first bytes say. 16-bit values v become v * 255 / 65535, rounded. Colours
    are converted to sRGB: those of a profile by relative colorimetry with black point
    compensation, those told by numbers by their primaries and curve; HDR (PQ, HLG) is refused.
    Alpha is composited in sRGB after that. Files with several frames give the first one. Half a
    picture is never returned. With a `reduction`, a sound JPEG file gives fewer pixels, as that
    allows; which files fail does not depend on it.
    """
    return _decoded(open_picture(data), policy, reduction)


def probe_jpeg(data: bytes, policy: DecodePolicy) -> DecodedImage | None:
    """A plain JPEG file in the fewest pixels that show whether all of its data are sound.

    None where it is no such file: a decoder of another kind might give other pixels. A file that is
    not sound comes back whole, or fails, just as `decode_image` has it.
    """
    stored = open_picture(data)
    try:
        plain = stored.is_plain()
    except Exception:  # what is odd in a header is for the decoding to judge
        plain = False
    return _decoded(stored, policy, lambda size: FACTORS[-1]) if plain else None


def _decoded(stored: Stored, policy: DecodePolicy, reduction: Reduction | None) -> DecodedImage:
    check_pixels("picture is", stored.size, policy.max_pixels)
    policy.sizes.check(stored.size)
    notes: list[str] = []
    try:
        if reduction is None or stored.load_reduced is None:
            loaded = stored.load(notes)
        else:
            loaded = stored.load_reduced(notes, reduction)
        pixels, told = loaded.pixels, loaded.colours
        if isinstance(pixels, Wide):
            pixels, told = to_eight_bits(pixels, told, notes)
        colour, alpha = split_alpha(pixels)
        rgb = to_srgb(colour, told, notes)
        rgb = put_on(rgb, alpha, policy.alpha, notes)
        rgb = _turned(rgb, loaded.turn, notes)
    except SampleError:
        raise
    except Exception as error:  # a damaged file makes decoders raise almost any kind
        raise SampleError("decode_image", damage(stored.format, error)) from error
    whole = loaded.whole or size_of(rgb)
    if loaded.whole and loaded.turn in SIDEWAYS:
        whole = whole[1], whole[0]
    return DecodedImage(rgb, whole, tuple(notes))


def check_pixels(what: str, size: tuple[int, int], most: int) -> None:
    """SampleError where a picture or frame of `size` (W, H) has more than `most` pixels."""
    width, height = size
    if width * height > most:
        raise SampleError(
            "decode_image",
            f"{what} {width}x{height}, {width * height:,} pixels; the limit is"
            f" {most:,} (--max-pixels raises it)",
        )


def _turned(rgb: Rgb, turn: int, notes: list[str]) -> Rgb:
    if turn not in _TURNS:
        return rgb
    notes.append(f"orientation {turn} applied")
    return image_of(rgb).transpose(_TURNS[turn])


def encode_lossless(pixels: Tensor) -> tuple[bytes, str]:
    """(bytes, format) of uint8 [3, H, W]: WebP where it holds them, else PNG.

    A photograph is a quarter smaller than as PNG, in half the time.
    """
    format = "webp" if max(pixels.shape[1:]) <= _MAX_SIDE["webp"] else "png"
    options = _SAVE_OPTIONS[format](100) | (_QUICK if format == "webp" else {})
    return _file_of(pixels, format, options), format


def encode_image(pixels: Tensor, format: str, quality: int = 95) -> bytes:
    """uint8 [3, H, W] sRGB to the bytes of a file; equal input gives equal bytes.

    It carries the words MADE_BY. `format` is a key of SUFFIX_OF. `quality` is 1 to 100: JPEG keeps
    full colour resolution from 90, WebP is lossless at 100, PNG always is. UsageError for another
    format or quality, SampleError where the format cannot hold a picture so large.
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
    return _file_of(pixels, format, _SAVE_OPTIONS[format](quality))


def _file_of(pixels: Tensor, format: str, options: dict[str, Any]) -> bytes:
    # torch would interleave the planes with threads of its own, in each thread that encodes.
    image = Image.merge("RGB", [Image.fromarray(plane) for plane in pixels.cpu().numpy()])
    file = io.BytesIO()
    image.save(file, format, exif=_made_by(), **options)
    return file.getvalue()


@cache
def _made_by() -> bytes:
    """EXIF data that say which program made a picture."""
    exif = Image.Exif()
    exif[_SOFTWARE] = MADE_BY
    return exif.tobytes()


def to_uint8(images: Tensor) -> Tensor:
    """Float [..., 3, H, W] in [-1, 1] to uint8: clamped, then (x + 1) * 127.5 rounded half up.

    Any device; NaN becomes 0.
    """
    levels = images.float().nan_to_num(nan=-1.0).clamp(-1, 1).add(1).mul(127.5)
    return levels.add(0.5).floor().to(torch.uint8)


def to_float(pixels: Tensor) -> Tensor:
    """uint8 [..., 3, H, W] to float32 in [-1, 1]; `to_uint8` gives exactly the same pixels back."""
    return pixels.to(torch.float32) / 127.5 - 1
