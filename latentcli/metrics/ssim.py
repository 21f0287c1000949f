"""uint8 images in, structural similarity per image out, by either of the two usual definitions.

Wang, Bovik, Sheikh and Simoncelli 2004, "Image quality assessment: from error visibility to
structural similarity": K1 = 0.01, K2 = 0.03, data range 255, windows that lie wholly inside the
image; the mean over windows and channels. The paper's windows are 11x11 Gaussians of sigma 1.5;
scikit-image's are, unless told otherwise, 7x7 boxes, with the sample covariance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


@dataclass(frozen=True, slots=True)
class Window:
    """What a local mean is taken over, along each side."""

    weights: tuple[float, ...]
    """Sum to 1."""
    covariance: float
    """Factor of variances and covariances: above 1 where they are those of a sample."""

    @property
    def side(self) -> int:
        """Pixels along a side."""
        return len(self.weights)


def _gaussian(side: int, sigma: float) -> Window:
    weights = [math.exp(-0.5 * ((i - side // 2) / sigma) ** 2) for i in range(side)]
    return Window(tuple(weight / sum(weights) for weight in weights), 1.0)


WINDOWS = {
    "uniform": Window((1 / 7,) * 7, 49 / 48),
    "gaussian": _gaussian(11, 1.5),
}
"""The two definitions: scikit-image's default, and the paper's."""


def ssim(a: Tensor, b: Tensor, window: str = "uniform") -> Tensor:
    """Float64 [N], at most 1, for uint8 [N, 3, H, W] on any device.

    `window` is a key of WINDOWS. Variances are differences of large numbers, hence float64; images
    are taken one by one, which bounds the memory. ValueError for other dtypes or shapes, or a side
    shorter than the window.
    """
    if a.dtype != torch.uint8 or b.dtype != torch.uint8:
        raise ValueError(f"images are {a.dtype} and {b.dtype}, both must be uint8")
    if a.shape != b.shape or a.ndim != 4:
        raise ValueError(f"images are {tuple(a.shape)} and {tuple(b.shape)}, not two [N, 3, H, W]")
    used = WINDOWS[window]
    if min(a.shape[2:]) < used.side:
        raise ValueError(
            f"images are {a.shape[3]}x{a.shape[2]}, {window} SSIM needs at least"
            f" {used.side}x{used.side}"
        )
    scores = [_ssim_of_one(x.double(), y.double(), used) for x, y in zip(a, b, strict=True)]
    return torch.stack(scores) if scores else a.new_zeros(0, dtype=torch.float64)


def _ssim_of_one(x: Tensor, y: Tensor, window: Window) -> Tensor:
    """Float64 [C, H, W] twice to a scalar."""
    means = _window_mean(torch.stack([x, y, x * x, y * y, x * y]), window)
    mean_x, mean_y, mean_xx, mean_yy, mean_xy = means
    square_x, square_y, product = mean_x * mean_x, mean_y * mean_y, mean_x * mean_y
    covariance = window.covariance * (mean_xy - product)
    spread = window.covariance * ((mean_xx - square_x) + (mean_yy - square_y))
    likeness = (2 * product + _C1) * (2 * covariance + _C2)
    return torch.mean(likeness / ((square_x + square_y + _C1) * (spread + _C2)))


def _window_mean(maps: Tensor, window: Window) -> Tensor:
    """Mean over each window that lies inside [..., H, W] maps."""
    for dim in (-2, -1):
        # Summing shifted maps is several times faster than a float64 convolution on a CPU.
        length = maps.shape[dim] - window.side + 1
        total = maps.narrow(dim, 0, length) * window.weights[0]
        for i, weight in enumerate(window.weights[1:], start=1):
            total.add_(maps.narrow(dim, i, length), alpha=weight)
        maps = total
    return maps
