"""Gives pictures the buckets that SimpleTuner gives them, float for float.

There is no table: the size is computed from the picture's aspect ratio, rounded to two decimals.
`simpletuner` is what a data set with the resolution type `area` or `pixel_area` gets,
`simpletuner-pixel` what one with the type `pixel` gets, whose shorter side is the resolution. Both
keep the aspect ratio: crop true, crop_style center, crop_aspect preserve. Where pictures of several
aspect ratios round to one bucket ratio, SimpleTuner gives all of them the size of the first that it
met; the sizes here do not depend on the order.
"""

from __future__ import annotations

import math

from latentcli.core.errors import SampleError, UsageError
from latentcli.images.bucket_rules.rule import BucketRule, Grid, Size

NAMED_MEGAPIXELS = {0.25: 512**2, 0.5: 768**2, 1.0: 1024**2, 2.0: 1536**2, 4.0: 2048**2}
"""The pixels of a square picture where the resolution is one of these, but for NEARLY."""
NEARLY = 0.05
ENLARGES = "always enlarges small pictures"


def area_size(megapixels: float, step: int, size: Size) -> tuple[Size, Size]:
    """(size to crop to, size to resize to) of a picture, before squares are put right."""
    edge = rounded(int(math.sqrt(megapixels * 1e6)), step)
    aspect = aspect_of(size)
    target = rounded(edge * math.sqrt(aspect), step), rounded(edge / math.sqrt(aspect), step)
    exact = size[0] / size[1]
    w, h = start_size(target, exact, tall=target[0] < target[1])
    if w < target[0]:
        missing = target[0] - w
        return target, (w + missing, h + int(missing / exact))
    if h < target[1]:
        missing = target[1] - h
        return target, (w + int(missing * exact), h + missing)
    return target, (w, h)


def pixel_size(side: int, step: int, size: Size) -> tuple[Size, Size]:
    """(size to crop to, size to resize to) of a picture whose shorter side becomes `side`."""
    aspect, tall = aspect_of(size), size[0] < size[1]
    first = (side, int(side / aspect)) if tall else (int(side * aspect), side)
    target = rounded(first[0], step), rounded(first[1], step)
    exact = size[0] / size[1]
    w, h = start_size(target, exact, tall=tall)
    if w < target[0]:
        w, h = target[0], int(target[0] / exact)
    if h < target[1]:
        w, h = int(target[1] * exact), target[1]
    return target, (w, h)


def start_size(target: Size, exact: float, *, tall: bool) -> Size:
    """The target's shorter side, and the other one by the picture's own aspect ratio."""
    width, height = target
    return (width, int(width / exact)) if tall else (int(height * exact), height)


def area_square(megapixels: float, step: int) -> int:
    """The side of a square bucket, which is another than that of the sizes beside it."""
    near = (n for name, n in NAMED_MEGAPIXELS.items() if abs(megapixels - name) < NEARLY)
    return rounded(math.sqrt(next(near, megapixels * 1e6)), step)


def squared(target: Size, resized: Size, square: int) -> tuple[Size, Size]:
    """Both sizes, of a target that is all but square with the sides of the square."""
    if aspect_of(target) != 1.0:
        return target, resized
    if resized[0] < square:
        resized = square, square
    # A picture that is hardly wider than the square may be lower than it.
    return (square, square), (max(resized[0], square), max(resized[1], square))


def aspect_of(size: Size) -> float:
    """The aspect ratio in two decimals; SampleError where that is 0, as SimpleTuner fails too."""
    aspect = round(size[0] / size[1], 2)
    if aspect == 0:
        raise SampleError(
            "preprocess",
            f"picture is {size[0]}x{size[1]}; it is too narrow for SimpleTuner: its aspect ratio"
            " rounds to 0",
        )
    return aspect


def rounded(side: float, step: int) -> int:
    """The nearest whole steps, at least one; of two as near, the even number of steps."""
    return max(int(round(side / step) * step), step)


def by_area(grid: Grid, size: Size) -> tuple[Size, Size]:
    """(bucket, resized size)."""
    megapixels = grid.area / 1e6
    square = area_square(megapixels, grid.step)
    return squared(*area_size(megapixels, grid.step, size), square)


def by_pixel(grid: Grid, size: Size) -> tuple[Size, Size]:
    """(bucket, resized size)."""
    side = math.isqrt(grid.area)
    return squared(*pixel_size(side, grid.step, size), side)


def check_side(reso: Size, step: int) -> None:
    """UsageError where the area is no square, or its side no multiple of the step."""
    if reso[0] != reso[1] or reso[0] % step:
        raise UsageError(
            f"the bucket rule simpletuner-pixel takes the shorter side of all pictures as --area,"
            f" one number that is a multiple of {step}; it is {reso[0]}x{reso[1]}"
        )


SIMPLETUNER = BucketRule(
    lambda grid, size: by_area(grid, size)[0],
    lambda grid, size, target: by_area(grid, size)[1],
    always_enlarges=ENLARGES,
)
SIMPLETUNER_PIXEL = BucketRule(
    lambda grid, size: by_pixel(grid, size)[0],
    lambda grid, size, target: by_pixel(grid, size)[1],
    always_enlarges=ENLARGES,
    bounded=False,
    check=check_side,
)
