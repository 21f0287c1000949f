"""Says by how much a picture may be made smaller while it is decoded, before it is resized.

A JPEG decoder gives a half, a quarter or an eighth of each side for less work than the whole: of
each block of 8x8 pixels it computes 4x4, 2x2 or one, from the block's low frequencies alone. That
is close to resizing the whole where enough pixels remain for the resize, which is what Pillow calls
the reducing gap.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from latentcli.images.bucket_rules.rule import Size

FACTORS = (1, 2, 4, 8)
"""Pixels of a side that become one."""

Reduction = Callable[[Size], int]
"""The upright (W, H) of a whole picture -> which of FACTORS it may be divided by."""


def reduced_size(size: Size, factor: int) -> Size:
    """(W, H) of a reduced picture: its last pixels may lie partly outside of the whole."""
    return -(-size[0] // factor), -(-size[1] // factor)


def factor_of(reduced: Size, size: Size) -> int:
    """By what a picture of `size` was divided to give `reduced`; ValueError where by none."""
    for factor in FACTORS:
        if reduced == reduced_size(size, factor):
            return factor
    raise ValueError(f"picture of {reduced} is not a reduction of one of {size}")


def largest_factor(size: Size, resized: Size, gaps: Sequence[float]) -> int:
    """The largest factor that leaves enough pixels for each one of a resized side.

    `gaps` says how many those are, for each of FACTORS from 2 on.
    """
    most = min(size[0] / resized[0], size[1] / resized[1])
    allowed = [f for f, gap in zip(FACTORS[1:], gaps, strict=False) if f * gap <= most]
    return max(allowed, default=1)
