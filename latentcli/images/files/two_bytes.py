"""Reads 16-bit colour through Pillow, which itself gives only one byte of each two."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ImageFile

_OTHER_IS_BIG = sys.byteorder == "little"
# Pillow reads 16-bit colour by taking the first byte of two; told the other byte order, it takes
# the second. LA;16B fills the four bytes of RGBA, so there all of them come at once.
_SECOND_BYTES = {
    "RGB;16B": "RGB;16L",
    "RGB;16L": "RGB;16B",
    "RGB;16N": "RGB;16B" if _OTHER_IS_BIG else "RGB;16L",
    "RGBA;16B": "RGBA;16L",
    "RGBA;16L": "RGBA;16B",
    "RGBA;16N": "RGBA;16B" if _OTHER_IS_BIG else "RGBA;16L",
    "LA;16B": "RGBA",
}


def two_bytes(
    opened: ImageFile.ImageFile, reopen: Callable[[], ImageFile.ImageFile]
) -> npt.NDArray[Any] | None:
    """uint16 [H, W, 2 to 4] of a 16-bit colour picture that is not loaded yet, or None.

    It is loaded by this, and so is the twin that `reopen` gives.
    """
    # A tile's arguments are its raw mode, or a tuple that begins with it.
    args = [(t.args,) if isinstance(t.args, str) else t.args or ("",) for t in opened.tile]
    rawmode = args[0][0] if args else ""
    if rawmode not in _SECOND_BYTES:
        return None
    twin = reopen()
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
