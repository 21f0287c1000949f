"""Writes out the formulas of the bucket rules, as sd-scripts and musubi-tuner have them."""

from __future__ import annotations

import math

import numpy as np

from latentcli.core.errors import SampleError
from latentcli.images.buckets import Buckets

Size = tuple[int, int]


def sd_scripts_table(reso: Size, low: int, high: int, step: int) -> list[Size]:
    area = reso[0] * reso[1]
    sizes = set()
    width = int(math.sqrt(area) // step) * step
    sizes.add((width, width))
    width = low
    while width <= high:
        height = min(high, int((area // width) // step) * step)
        if height >= low:
            sizes.add((width, height))
            sizes.add((height, width))
        width += step
    return sorted(sizes)


def sd_scripts_pick(size: Size, table: list[Size]) -> tuple[Size, Size]:
    """(bucket, resized size) where pictures may be enlarged."""
    w, h = size
    aspect = w / h
    if size in set(table):
        reso = size
    else:
        errors = np.array([a / b for a, b in table]) - aspect
        reso = table[np.abs(errors).argmin()]
    scale = reso[1] / h if aspect > reso[0] / reso[1] else reso[0] / w
    return reso, (int(w * scale + 0.5), int(h * scale + 0.5))


def sd_scripts_shrink(size: Size, area: int, step: int) -> tuple[Size, Size]:
    """(bucket, resized size) where they may not."""

    def steps(x: float) -> int:
        x = int(x + 0.5)
        return x - x % step

    w, h = size
    aspect = w / h
    resized = size
    if w * h > area:
        width = math.sqrt(area * aspect)
        height = area / width
        width_rounded = steps(width)
        height_in_wr = steps(width_rounded / aspect)
        error_wr = abs(width_rounded / height_in_wr - aspect)
        height_rounded = steps(height)
        width_in_hr = steps(height_rounded * aspect)
        error_hr = abs(width_in_hr / height_rounded - aspect)
        if error_wr < error_hr:
            resized = (width_rounded, int(width_rounded / aspect + 0.5))
        else:
            resized = (int(height_rounded * aspect + 0.5), height_rounded)
    return (resized[0] - resized[0] % step, resized[1] - resized[1] % step), resized


def musubi_table(reso: Size, step: int) -> list[Size]:
    area = reso[0] * reso[1]
    sqrt_size = int(math.sqrt(area))
    first = sqrt_size // 2 - sqrt_size // 2 % step
    sizes = []
    for w in range(first, sqrt_size + step, step):
        h = area // w - area // w % step
        sizes += [(w, h), (h, w)]
    return sorted(set(sizes))


def musubi_pick(size: Size, reso: Size, step: int, no_upscale: bool) -> tuple[Size, Size]:
    w, h = size
    table = musubi_table(reso, step)
    if no_upscale and w * h <= reso[0] * reso[1]:
        bucket = (w - w % step, h - h % step)
    else:
        errors = np.array([a / b for a, b in table]) - w / h
        bucket = table[np.abs(errors).argmin()]
    scale = max(bucket[0] / w, bucket[1] / h)
    return bucket, (int(w * scale + 0.5), int(h * scale + 0.5))


def area_table(reso: Size, step: int) -> list[Size]:
    """By trying every pair of sides."""
    area = reso[0] * reso[1]
    square = math.isqrt(area)
    sides = [s for s in range(step, 2 * square + 1, step) if 2 * s >= square]
    fits = {(w, h) for w in sides for h in sides if w * h <= area}
    return sorted(
        (w, h)
        for w, h in fits
        if (w, h + step) not in fits
        or (w + step, h) not in fits
        or (w == h and (w + step, h + step) not in fits)
    )


def outcome(buckets: Buckets, size: Size) -> tuple[Size, Size] | None:
    """(bucket, resized size), or None where the picture is refused."""
    try:
        target = buckets.pick(size)
    except SampleError as error:
        assert error.stage == "preprocess"
        assert f"picture is {size[0]}x{size[1]}" in error.reason
        return None
    return target, buckets.resized(size, target)
