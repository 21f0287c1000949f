"""Gives pictures the bucket of the nearest ratio of aspect ratios: our own rule, and that of files.

The table has, for each width, the largest height that fits into the area, both ways round, and the
square; sides go from half to twice the square's.
"""

from __future__ import annotations

import math

from latentcli.images.bucket_rules.rule import (
    BucketRule,
    Grid,
    Limits,
    Size,
    Table,
    check_limits,
    covering_size,
    down,
    square_of,
)


def area_table(area: int, step: int, low: int, high: int) -> Table:
    """For each width the largest height that fits, both ways round, and the square."""
    square = square_of(area, step)
    sizes = {(square, square)}
    for width in range(-(-low // step) * step, high + 1, step):
        height = down(area // width, step)
        sizes |= {(width, height), (height, width)}
    return tuple(sorted(size for size in sizes if low <= min(size) and max(size) <= high))


def area_limits(reso: Size, step: int, low: int | None, high: int | None) -> Limits:
    """Half and twice the square's side, where none are asked for."""
    check_limits(reso, low, high)
    square = math.isqrt(reso[0] * reso[1])
    return low or -(-square // 2), high or 2 * square


def pick_by_ratio(grid: Grid, size: Size) -> Size:
    """Nearest aspect ratio in log space, then the larger area, then longer the picture's way."""
    (w, h), tall = size, size[1] > size[0]

    def order(bucket: Size) -> tuple[float, int, int]:
        # The log of this ratio is the distance. Swapping width and height everywhere gives the
        # same floats, so pictures and their turned copies get the same bucket, turned.
        a, b = w * bucket[1], h * bucket[0]
        return max(a, b) / min(a, b), -bucket[0] * bucket[1], -bucket[1 if tall else 0]

    width, height = min(grid.table, key=order)
    if grid.no_upscale:
        # What would be enlarged keeps the side that is too short, in whole steps.
        return min(width, down(w, grid.step)), min(height, down(h, grid.step))
    return width, height


def resized_to_cover(grid: Grid, size: Size, target: Size) -> Size:
    """Just covers the bucket."""
    return covering_size(size, target)


AREA = BucketRule(
    pick_by_ratio, resized_to_cover, joins_divisor=True, table=area_table, limits=area_limits
)
FILE = BucketRule(pick_by_ratio, resized_to_cover)
"""Of a table that was read, not made."""
