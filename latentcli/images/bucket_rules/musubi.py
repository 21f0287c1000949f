"""Gives pictures the buckets that musubi-tuner gives them, float for float."""

from __future__ import annotations

import math

from latentcli.images.bucket_rules.rule import (
    BucketRule,
    Grid,
    Size,
    Table,
    down,
    nearest_difference,
    whole_steps,
)


def musubi_table(area: int, step: int, low: int, high: int) -> Table:
    """Widths from half the square's side to just above it, both ways round."""
    square = math.isqrt(area)
    widths = range(down(square // 2, step), square + step, step)
    pairs = [(width, down(area // width, step)) for width in widths]
    return tuple(sorted({*pairs, *((h, w) for w, h in pairs)}))


def pick_musubi(grid: Grid, size: Size) -> Size:
    """The nearest aspect ratio; a small picture that is not to be enlarged keeps its size."""
    if grid.no_upscale and size[0] * size[1] <= grid.area:
        return whole_steps(size, grid.step)
    return nearest_difference(grid.table, size)


def resized_musubi(grid: Grid, size: Size, target: Size) -> Size:
    """Scaled to cover the bucket, both sides rounded half up."""
    (w, h), (width, height) = size, target
    scale = max(width / w, height / h)
    return int(w * scale + 0.5), int(h * scale + 0.5)


MUSUBI = BucketRule(pick_musubi, resized_musubi, step=16, table=musubi_table, least_steps=2)
