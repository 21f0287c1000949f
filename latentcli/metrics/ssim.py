"""Computes the structural similarity of uint8 images, by either of the two usual definitions.

Wang, Bovik, Sheikh and Simoncelli 2004, "Image quality assessment: from error visibility to
structural similarity": K1 = 0.01, K2 = 0.03, data range 255, windows that lie wholly inside the
image; the mean over windows and channels. The paper's windows are 11x11 Gaussians of sigma 1.5;
scikit-image's are by default 7x7 boxes, with the sample covariance.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from latentcli.metrics.psnr import check_pictures

_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
_WIDE = 512
"""Columns of a tile of a plane that is too large to be taken whole."""
_TILE_PER_THREAD, _TILE_ON_DEVICE = 2**16, 2**21
"""Pixels that are worked on at once: on a CPU, what the cache of a core holds four maps of."""

Score = Callable[[Tensor, Tensor], Tensor]
"""[P, h, w] planes twice to a float64 [P, h', w'] map, one value per window."""


@dataclass(frozen=True, slots=True)
class Window:
    """What local means and variances are taken over."""

    side: int
    """Pixels along a side."""
    score: Score
    """The similarity in each window of 8-bit planes."""


def ssim(a: Tensor, b: Tensor, window: str = "uniform") -> Tensor:
    """Float64 [N], at most 1, for uint8 [N, 3, H, W] on any device.

    `window` is a key of WINDOWS. Memory is bounded, however many and large the images are.
    ValueError for other dtypes or shapes, or a side shorter than the window.
    """
    used = WINDOWS[window]
    check_pair(a, b, used.side, f"{window} SSIM")
    planes = mean_over_windows(a.flatten(0, 1), b.flatten(0, 1), used.side, used.score)
    return planes.view(a.shape[:2]).mean(dim=1)


def check_pair(a: Tensor, b: Tensor, least_side: int, measure: str) -> None:
    """ValueError unless both are uint8 [N, 3, H, W] and both sides have `least_side` pixels."""
    check_pictures(a, b, empty=True)
    if min(a.shape[2:]) < least_side:
        raise ValueError(
            f"images are {a.shape[3]}x{a.shape[2]}, {measure} needs at least"
            f" {least_side}x{least_side}"
        )


def mean_over_windows(x: Tensor, y: Tensor, side: int, score: Score) -> Tensor:
    """Float64 [P]: the mean of `score` over all windows of `side` pixels in [P, H, W] planes.

    Small planes are scored together and large ones tile by tile, so that a CPU works in its cache,
    a GPU is kept busy, and neither needs memory for whole maps.
    """
    planes, height, width = x.shape
    on_cpu = x.device.type == "cpu"
    pixels = _TILE_PER_THREAD * torch.get_num_threads() if on_cpu else _TILE_ON_DEVICE
    many, tall, wide = pixels // (height * width), height, width
    if not many:
        many, tall, wide = 1, pixels // _WIDE, _WIDE
    total = torch.zeros(planes, dtype=torch.float64, device=x.device)
    down, across = height - side + 1, width - side + 1
    starts = range(0, planes, many), range(0, down, tall), range(0, across, wide)
    for first, top, left in product(*starts):
        bottom, right = top + tall + side - 1, left + wide + side - 1
        part = slice(first, first + many), slice(top, bottom), slice(left, right)
        total[part[0]] += score(x[part], y[part]).sum(dim=(1, 2))
    return total / (down * across)


def gaussian_terms(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The luminance term, and the contrast and structure terms as one, in each 11x11 window.

    Planes of any dtype; float64, as variances are differences of large numbers.
    """
    x, y = x.double(), y.double()
    means = _gaussian_mean(torch.stack([x, y, x * x + y * y, x * y]))
    mean_x, mean_y, mean_squares, mean_xy = means
    squares, xy = mean_x * mean_x + mean_y * mean_y, mean_x * mean_y
    contrast = (2 * (mean_xy - xy) + _C2) / (mean_squares - squares + _C2)
    return (2 * xy + _C1) / (squares + _C1), contrast


def _gaussian_score(x: Tensor, y: Tensor) -> Tensor:
    luminance, contrast = gaussian_terms(x, y)
    return luminance * contrast


def _gaussian_mean(maps: Tensor) -> Tensor:
    for dim in (-2, -1):
        # Summing shifted maps is faster than a float64 convolution or a banded product on a CPU.
        length = maps.shape[dim] - len(_GAUSSIAN) + 1
        total = maps.narrow(dim, 0, length) * _GAUSSIAN[0]
        for i, weight in enumerate(_GAUSSIAN[1:], start=1):
            total.add_(maps.narrow(dim, i, length), alpha=weight)
        maps = total
    return maps


def _gaussian(side: int, sigma: float) -> tuple[float, ...]:
    weights = [math.exp(-0.5 * ((i - side // 2) / sigma) ** 2) for i in range(side)]
    return tuple(weight / sum(weights) for weight in weights)


def _uniform_score(x: Tensor, y: Tensor) -> Tensor:
    """Of uint8 planes. All up to the ratio is exact: the largest sum, 49 * 2 * 49 * 255^2, fits."""
    x, y = x.int(), y.int()
    sum_x, sum_y, sum_squares, sum_xy = _box_sum(torch.stack([x, y, x * x + y * y, x * y]))
    xy, squares = sum_x * sum_y, sum_x * sum_x + sum_y * sum_y
    covariance, spread = (49 * sum_xy - xy).double(), (49 * sum_squares - squares).double()
    # Means are sums over 49, variances and covariances of a sample these differences over 49 * 48.
    c1, c2 = _C1 * 49 * 49, _C2 * 49 * 48
    likeness = (2 * xy.double() + c1) * (2 * covariance + c2)
    return torch.div(likeness, (squares.double() + c1) * (spread + c2))


def _box_sum(maps: Tensor) -> Tensor:
    """Sum over each 7x7 window: of two neighbours, three times, and one."""
    for dim in (-2, -1):
        length = maps.shape[dim] - 6
        two = maps.narrow(dim, 0, length + 5) + maps.narrow(dim, 1, length + 5)
        six = two.narrow(dim, 0, length) + two.narrow(dim, 2, length)
        six += two.narrow(dim, 4, length)
        maps = six.add_(maps.narrow(dim, 6, length))
    return maps


_GAUSSIAN = _gaussian(11, 1.5)
WINDOWS = {
    "uniform": Window(7, _uniform_score),
    "gaussian": Window(len(_GAUSSIAN), _gaussian_score),
}
"""The two definitions: scikit-image's default, and the paper's."""
