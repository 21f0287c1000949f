"""Narrows pictures of more than 8 bits a channel to 8 bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from latentcli.core.errors import SampleError
from latentcli.images.colour_space import ColourSpace, convert


@dataclass(frozen=True, slots=True)
class Wide:
    """The pixels of a picture, 16 bits a channel."""

    values: npt.NDArray[np.uint16]
    """[H, W] grey, or [H, W, C]: grey and alpha, RGB, or RGB and alpha. 65535 is white."""
    note: str = "16-bit values to 8-bit"
    """What will be said of the picture."""
    transparent: Any = None
    """The value, or the (R, G, B), whose pixels are transparent; None: there is no such."""


def as_wide(values: npt.NDArray[Any]) -> Wide:
    """Integers up to 65535 or floats up to 1.0, which is white, [H, W] or [H, W, C].

    SampleError where values below or above those say that something else must be white.
    """
    is_float = values.dtype.kind == "f"
    top, name = (1, "float") if is_float else (65535, "32-bit integer")
    low, high = values.min().item(), values.max().item()
    if not (low >= 0 and high <= top):
        raise SampleError(
            "decode_image",
            f"{name} picture holds values from {low:g} to {high:g}; allowed are 0 to {top}, "
            "because nothing in the file says which value is white; convert it to 8 or 16 bits",
        )
    if is_float:
        return Wide((values * 65535 + 0.5).astype(np.uint16), "float values to 8-bit")
    return Wide(values.astype(np.uint16))


def straight_alpha(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """[H, W, C] with premultiplied alpha as the last channel, with the colours as they were."""
    top = np.uint64(np.iinfo(values.dtype).max)
    result = values.copy()
    for row in result:
        alpha = row[:, -1:].astype(np.uint64)
        whole = np.maximum(alpha, 1)
        row[:, :-1] = np.minimum((row[:, :-1] * top + whole // 2) // whole, top)
    return result


def narrowed(wide: Wide, space: ColourSpace | None) -> Image.Image:
    """The picture in 8 bits: v * 255 / 65535, rounded; from `space` to sRGB where one is given.

    The conversion of colours comes first, or dark tones of linear light would be lost.
    """
    values = wide.values
    count = values.shape[2] if values.ndim == 3 else 1
    colours = _without_alpha(values)
    narrow = convert(np.ascontiguousarray(colours), space) if space else _rounded(colours)
    image = Image.fromarray(narrow)
    if count in (2, 4):
        image.putalpha(Image.fromarray(_rounded(values[..., -1])))
    elif wide.transparent is not None:
        opaque = (values != np.asarray(wide.transparent)).reshape(*values.shape[:2], -1).any(axis=2)
        image.putalpha(Image.fromarray(opaque.astype(np.uint8) * 255))
    return image


def _without_alpha(values: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    """[H, W] of grey, [H, W, 3] of RGB."""
    if values.ndim == 2:
        return values
    return values[..., 0] if values.shape[2] < 3 else values[..., :3]


def _rounded(wide: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint8]:
    narrow = np.empty(wide.shape, np.uint8)
    # Row by row: of a large picture, 32 bits a value would take gigabytes.
    for row, values in zip(narrow, wide, strict=True):
        row[...] = (values.astype(np.uint32) + 128) // 257
    return narrow
