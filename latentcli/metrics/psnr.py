"""Computes the peak signal-to-noise ratio of uint8 images in dB, and summarises lists of figures.

Protocol: images are clamped to [-1, 1] and rounded to 8 bits first (images.codec.to_uint8); the
squared error is averaged over all channels and pixels of one image; peak is 255; the figure of a
set is the mean over its images, not the PSNR of the mean error.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_VALUES = 2**24
"""Values of images that are taken at once, which bounds the memory."""
PERCENTILES = {"median": 50, "min": 0, "p5": 5, "p95": 95, "max": 100}


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Float64 [N] in dB for uint8 [N, 3, H, W]; infinite where the images are identical.

    The squared error is summed in integers, so the figure does not depend on the device.
    ValueError for other dtypes or shapes.
    """
    check_pictures(a, b)
    many = max(1, _VALUES // a[0].numel())
    sums = torch.cat(list(map(_squares, torch.split(a, many), torch.split(b, many))))
    return 10 * torch.log10(255**2 / (sums.double() / a[0].numel()))


def check_pictures(
    a: Tensor, b: Tensor, noun: str = "images", shape: str = "[N, 3, H, W]", *, empty: bool = False
) -> None:
    """ValueError unless both are uint8 of one shape of four dimensions; `empty` ones may be."""
    if a.dtype != torch.uint8 or b.dtype != torch.uint8:
        raise ValueError(f"{noun} are {a.dtype} and {b.dtype}, both must be uint8")
    if a.shape != b.shape or a.ndim != 4 or not (empty or a.numel()):
        raise ValueError(f"{noun} are {tuple(a.shape)} and {tuple(b.shape)}, not two {shape}")


def _squares(a: Tensor, b: Tensor) -> Tensor:
    """Int64 [N]: the sum of each image's squared differences."""
    error = a.to(torch.int32) - b.to(torch.int32)
    return error.square().sum(dim=(1, 2, 3), dtype=torch.int64)


def summarise(values: Sequence[float]) -> dict[str, float]:
    """Mean, std (population), median, min, p5, p95, max of a non-empty list.

    Percentiles interpolate linearly. Infinite values (identical images) take their place in the
    order statistics and are left out of mean and std, which one of them would make meaningless;
    if all are infinite, the mean is too and std is 0. ValueError for an empty list or NaN.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    if not ordered.size:
        raise ValueError("there are no values to summarise")
    if np.isnan(ordered).any():
        raise ValueError("values to summarise contain NaN")
    finite = ordered[np.isfinite(ordered)]
    return {
        "mean": float(finite.mean()) if finite.size else float(ordered[-1]),
        "std": float(finite.std()) if finite.size else 0.0,
        **{name: _percentile(ordered, percent) for name, percent in PERCENTILES.items()},
    }


def _percentile(ordered: np.ndarray[tuple[int, ...], np.dtype[np.float64]], percent: int) -> float:
    # numpy's own gives NaN between two infinite values.
    below, part = divmod((ordered.size - 1) * percent, 100)
    low, high = float(ordered[below]), float(ordered[min(below + 1, ordered.size - 1)])
    return low if part == 0 or low == high else low + (high - low) * part / 100
