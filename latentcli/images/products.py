"""Resizes and crops whole pictures by two products of matrices, on any device.

The filters are Pillow's and torch's, and so are the steps: across first, rounded to whole levels,
then down. torch has kernels for 8-bit pictures on a CPU alone, and none of its own for lanczos on a
GPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from latentcli.images.bucket_rules.rule import Size

BLOCK = 128
"""Pixels of the result that are computed by one product. Each comes from a few pixels nearby, so a
product of the whole picture would be zeros for the most part."""

Crop = tuple[int, int, int, int]


def _lanczos(x: Tensor) -> Tensor:
    return torch.where(x.abs() < 3, torch.sinc(x) * torch.sinc(x / 3), 0.0)


def _bicubic(x: Tensor) -> Tensor:
    x = x.abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))


def _bilinear(x: Tensor) -> Tensor:
    return (1 - x.abs()).clamp_min(0)


_KERNELS: Mapping[str, tuple[Callable[[Tensor], Tensor], int]] = {
    "lanczos": (_lanczos, 3),
    "bicubic": (_bicubic, 2),
    "bilinear": (_bilinear, 1),
}
"""Filter -> (its weight at a distance, the distance from which on that is 0)."""

FILTERS = tuple(_KERNELS)
"""Filters that `resize_crop` knows."""


def resize_crop(whole: Tensor, resized: Size, crop: Crop, filter: str) -> Tensor:
    """uint8 [3, H, W] to the crop (left, top, right, bottom) of what it is in (W, H) `resized`.

    uint8 [3, bottom - top, right - left] on the same device, within two levels of what `preprocess`
    gives. `filter` is one of FILTERS.
    """
    (left, top, right, bottom), (height, width) = crop, whole.shape[1:]
    if resized == (width, height):
        return whole[:, top:bottom, left:right]
    across = _axis(whole, resized[0], left, right, filter)
    down = _axis(across.transpose(1, 2), resized[1], top, bottom, filter)
    return down.transpose(1, 2)


def _axis(values: Tensor, size: int, begin: int, end: int, filter: str) -> Tensor:
    """uint8 [C, A, B] with B resized to `size`, of which begin to end is kept."""
    if size == values.shape[2]:
        return values[:, :, begin:end]
    kernel, reach = _KERNELS[filter]
    scale = values.shape[2] / size
    wide = max(scale, 1.0)
    parts = []
    for start in range(begin, end, BLOCK):
        stop = min(start + BLOCK, end)
        first = max(math.floor((start + 0.5) * scale - reach * wide), 0)
        last = min(math.ceil((stop - 0.5) * scale + reach * wide), values.shape[2])
        to = torch.arange(start, stop, device=values.device, dtype=torch.float64)
        of = torch.arange(first, last, device=values.device, dtype=torch.float64)
        weights = kernel((of[:, None] + 0.5 - (to + 0.5) * scale) / wide)
        weights = (weights / weights.sum(dim=0)).float()
        parts.append(values[:, :, first:last].float() @ weights)
    return torch.cat(parts, dim=2).add_(0.5).floor_().clamp_(0, 255).to(torch.uint8)
