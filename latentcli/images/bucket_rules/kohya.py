"""Gives pictures the buckets that kohya's sd-scripts gives them, float for float."""

from __future__ import annotations

import math

from latentcli.images.bucket_rules.rule import (
    BucketRule,
    Grid,
    Limits,
    Size,
    Table,
    check_limits,
    down,
    nearest_difference,
    square_of,
    too_small,
    whole_steps,
)

SIDES = (256, 1024)
"""The trainer's own limits."""


def kohya_table(area: int, step: int, low: int, high: int) -> Table:
    """For each width the largest height that fits, both ways round, and the square."""
    square = square_of(area, step)
    sizes = {(square, square)}
    for width in range(low, high + 1, step):
        height = min(high, down(area // width, step))
        if height >= low:
            sizes |= {(width, height), (height, width)}
    return tuple(sorted(sizes))


def kohya_limits(reso: Size, step: int, low: int | None, high: int | None) -> Limits:
    """Limits in whole steps: sd-scripts brings the lower one down, the upper one up."""
    check_limits(reso, low, high)
    low = (low or min(SIDES[0], *reso)) // step * step
    high = -(-(high or max(SIDES[1], *reso)) // step) * step
    return max(low, step), high


def pick_kohya(grid: Grid, size: Size) -> Size:
    """The size itself where the table has it, else the nearest aspect ratio."""
    if grid.no_upscale:
        return whole_steps(shrunk(grid, size), grid.step)
    return size if size in grid.table else nearest_difference(grid.table, size)


def resized_kohya(grid: Grid, size: Size, target: Size) -> Size:
    """Scaled by the side that is nearer to its target, both sides rounded half up."""
    if grid.no_upscale:
        return shrunk(grid, size)
    (w, h), (width, height) = size, target
    scale = height / h if w / h > width / height else width / w
    return int(w * scale + 0.5), int(h * scale + 0.5)


def shrunk(grid: Grid, size: Size) -> Size:
    """The picture within the area, with the side in whole steps that keeps its aspect better."""
    (w, h), step = size, grid.step
    if w * h <= grid.area:
        return size
    aspect = w / h
    width = math.sqrt(grid.area * aspect)
    whole_width = down(int(width + 0.5), step)
    its_height = down(int(whole_width / aspect + 0.5), step)
    whole_height = down(int(grid.area / width + 0.5), step)
    its_width = down(int(whole_height * aspect + 0.5), step)
    if 0 in (its_height, whole_height):
        raise too_small(grid, size)
    if abs(whole_width / its_height - aspect) < abs(its_width / whole_height - aspect):
        return whole_width, int(whole_width / aspect + 0.5)
    return int(whole_height * aspect + 0.5), whole_height


KOHYA = BucketRule(pick_kohya, resized_kohya, table=kohya_table, limits=kohya_limits)
