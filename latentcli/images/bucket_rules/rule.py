"""Defines what a bucket rule is, and the arithmetic that several of them share."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from latentcli.core.errors import SampleError, UsageError

Size = tuple[int, int]
"""(W, H) in pixels."""
Table = tuple[Size, ...]
Limits = tuple[int, int]
"""Least and largest side in pixels."""


class Grid(Protocol):
    """What a rule is told of the buckets of a job; `Buckets` explains the fields."""

    @property
    def table(self) -> Table: ...
    @property
    def area(self) -> int: ...
    @property
    def step(self) -> int: ...
    @property
    def no_upscale(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class BucketRule:
    """How pictures get their buckets."""

    pick: Callable[[Grid, Size], Size]
    """The bucket of a picture."""
    resized: Callable[[Grid, Size, Size], Size]
    """What a picture is resized to before the crop to its bucket, the last argument."""
    step: int = 64
    """Where none is asked for."""
    joins_divisor: bool = False
    """Whether that step grows to a multiple of the model's size divisor."""
    table: Callable[[int, int, int, int], Table] | None = None
    """The buckets of an area, a step, and a least and largest side, sorted; None where the rule
    computes a size for each picture."""
    limits: Callable[[Size, int, int | None, int | None], Limits] | None = None
    """The limits of an area W x H and a step, from those that are asked for; None where the rule
    knows none."""
    least_steps: int = 1
    """Steps that the side of the area's square must have."""
    always_enlarges: str | None = None
    """Why pictures cannot be kept from being enlarged, behind "the bucket rule x"."""
    bounded: bool = True
    """Whether the area bounds the pixels of a bucket, up to rounding."""
    check: Callable[[Size, int], None] | None = None
    """UsageError for an area W x H and a step that this rule cannot take."""


def covering_size(size: Size, target: Size) -> Size:
    """`size` scaled to just cover `target`: one side matches, the other is rounded half up."""
    (w, h), (width, height) = size, target
    if w * height >= width * h:
        return max(width, (2 * w * height + h) // (2 * h)), height
    return width, max(height, (2 * h * width + w) // (2 * w))


def check_limits(reso: Size, low: int | None, high: int | None) -> None:
    """UsageError where limits that are asked for leave out the area's own sides."""
    if low is not None and not 0 < low <= min(reso):
        raise UsageError(
            f"least bucket side is {low}; allowed is 1 to {min(reso)}, the area's side"
        )
    if high is not None and high < max(reso):
        raise UsageError(
            f"largest bucket side is {high}; allowed is {max(reso)}, the area's side, or more"
        )


def nearest_difference(table: Table, size: Size) -> Size:
    """Nearest width / height, and the first of the sorted table where two are as near."""
    aspect = size[0] / size[1]
    return min(table, key=lambda bucket: abs(bucket[0] / bucket[1] - aspect))


def square_of(area: int, step: int) -> int:
    """The side of the largest square in whole steps."""
    return down(math.isqrt(area), step)


def down(side: int, step: int) -> int:
    """The whole steps of a side."""
    return side - side % step


def whole_steps(size: Size, step: int) -> Size:
    """The whole steps of both sides."""
    return down(size[0], step), down(size[1], step)


def too_small(grid: Grid, size: Size) -> SampleError:
    """What is raised for a picture that has no bucket."""
    return SampleError(
        "preprocess",
        f"picture is {size[0]}x{size[1]}; without enlarging, a side is less than one bucket step"
        f" ({grid.step} pixels)",
    )
