"""Holds 8-bit RGB pictures as Pillow's images or as arrays, without needless copies."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

Values = npt.NDArray[np.uint8]
Rgb = Image.Image | Values
"""An image of mode RGB, or its values [H, W, 3], which may be written to."""


def size_of(picture: Rgb) -> tuple[int, int]:
    """(W, H)."""
    if isinstance(picture, Image.Image):
        return picture.size
    height, width = picture.shape[:2]
    return width, height


def mode_of(picture: Rgb) -> str:
    """Pillow's mode; of an array it is RGB."""
    return picture.mode if isinstance(picture, Image.Image) else "RGB"


def image_of(picture: Rgb) -> Image.Image:
    """Pillow's image; a copy of an array."""
    return picture if isinstance(picture, Image.Image) else Image.fromarray(picture)


def values_of(picture: Rgb) -> Values:
    """uint8 [H, W, 3] that may be written to, as torch asks; a copy of an image."""
    return np.array(picture) if isinstance(picture, Image.Image) else picture
