"""Gives pictures the buckets that ai-toolkit gives them, float for float.

There is no table: each picture gets the size of whole steps that is nearest to its own, scaled down
to the area. The sizes before and after the crop are part of the name of ai-toolkit's cache file, so
the floats are computed in its order: the noise of their last bits makes one side a pixel longer
than the bucket needs for some pictures.
"""

from __future__ import annotations

import math

from latentcli.images.bucket_rules.rule import BucketRule, Grid, Size


def pick_ai_toolkit(grid: Grid, size: Size) -> Size:
    """Of the sizes around the picture's that fit into the area, the one nearest in pixels."""
    (w, h), step = size, grid.step
    pixels = w * h
    wanted = min(pixels, grid.area)
    scale = (wanted / pixels) ** 0.5
    across, along = w * scale / step, h * scale / step
    sizes = [
        (columns * step, rows * step)
        for columns in (math.floor(across), math.ceil(across))
        for rows in (math.floor(along), math.ceil(along))
    ]
    fitting = [size for size in sizes if min(size) > 0 and size[0] * size[1] <= grid.area]
    if not fitting:
        return max(step, sizes[0][0]), max(step, sizes[0][1])
    # The first of two that are as near.
    return min(fitting, key=lambda bucket: abs(bucket[0] * bucket[1] - wanted))


def resized_ai_toolkit(grid: Grid, size: Size, target: Size) -> Size:
    """Scaled to cover the bucket, both sides rounded up."""
    (w, h), (width, height) = size, target
    scale = max(width / w, height / h)
    return math.ceil(w * scale), math.ceil(h * scale)


AI_TOOLKIT = BucketRule(
    pick_ai_toolkit,
    resized_ai_toolkit,
    step=16,
    always_enlarges="always enlarges pictures to whole bucket steps, and no further",
)
