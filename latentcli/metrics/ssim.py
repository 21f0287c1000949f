"""uint8 images in, structural similarity per image out.

Wang, Bovik, Sheikh and Simoncelli 2004, "Image quality assessment: from error visibility to
structural similarity": 11x11 Gaussian window of sigma 1.5, K1 = 0.01, K2 = 0.03, data range 255,
population covariance, windows that lie wholly inside the image; the mean over windows and channels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Float64 [N], at most 1, for uint8 [N, 3, H, W] on any device.

    Variances are differences of large numbers, hence float64; images are taken one by one, which
    bounds the memory. ValueError for other dtypes or shapes, or a side under 11 pixels.
    """
    if a.dtype != torch.uint8 or b.dtype != torch.uint8:
        raise ValueError(f"images are {a.dtype} and {b.dtype}, both must be uint8")
    if a.shape != b.shape or a.ndim != 4:
        raise ValueError(f"images are {tuple(a.shape)} and {tuple(b.shape)}, not two [N, 3, H, W]")
    if min(a.shape[2:]) < _WINDOW:
        raise ValueError(
            f"images are {a.shape[3]}x{a.shape[2]}, SSIM needs at least {_WINDOW}x{_WINDOW}"
        )
    scores = [_ssim_of_one(x.double(), y.double()) for x, y in zip(a, b, strict=True)]
    return torch.stack(scores) if scores else a.new_zeros(0, dtype=torch.float64)


def _ssim_of_one(x: Tensor, y: Tensor) -> Tensor:
    """Float64 [C, H, W] twice to a scalar."""
    means = _window_mean(torch.stack([x, y, x * x, y * y, x * y]))
    mean_x, mean_y, mean_xx, mean_yy, mean_xy = means
    square_x, square_y, product = mean_x * mean_x, mean_y * mean_y, mean_x * mean_y
    likeness = (2 * product + _C1) * (2 * (mean_xy - product) + _C2)
    spread = (mean_xx - square_x) + (mean_yy - square_y)
    return torch.mean(likeness / ((square_x + square_y + _C1) * (spread + _C2)))


def _window_mean(maps: Tensor) -> Tensor:
    """Gaussian mean over each window inside [..., H, W] maps: [..., H - 10, W - 10]."""
    weights = [math.exp(-0.5 * ((i - _WINDOW // 2) / _SIGMA) ** 2) for i in range(_WINDOW)]
    for dim in (-2, -1):
        # Summing shifted maps is several times faster than a float64 convolution on a CPU.
        length = maps.shape[dim] - _WINDOW + 1
        total = maps.narrow(dim, 0, length) * (weights[0] / sum(weights))
        for i in range(1, _WINDOW):
            total.add_(maps.narrow(dim, i, length), alpha=weights[i] / sum(weights))
        maps = total
    return maps
