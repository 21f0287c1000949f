"""Computes the multi-scale structural similarity of uint8 images.

Wang, Simoncelli and Bovik 2003, "Multi-scale structural similarity for image quality assessment":
five scales, each half as large as the one before, the contrast of every scale and the luminance
of the last, raised to the paper's powers and multiplied. At each scale the windows are those of
the 2004 paper, 11x11 Gaussians of sigma 1.5 that lie wholly inside.

The figures are pytorch-msssim's, which are those that learned compression is published with. As
there, a negative mean contrast counts as 0 (its power would be no number), per channel and scale;
and where a side is odd, halving pads it with a row of zeros at both ends, which are averaged in.
TensorFlow repeats the last row instead, and torchmetrics drops it, so that only images whose
sides are multiples of 16 have the same figure everywhere.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from latentcli.metrics.ssim import WINDOWS, check_pair, gaussian_terms, mean_over_windows

POWERS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Of the scales, the finest first; the paper's."""
LEAST_SIDE = 161
"""The shortest side that leaves 11 pixels at the last scale."""
_SIDE = WINDOWS["gaussian"].side
_PIXELS = 2**24
"""Of one image's side of a batch that is halved at once: 64 MiB in float32."""


def ms_ssim(a: Tensor, b: Tensor) -> Tensor:
    """Float64 [N], 0 to 1, for uint8 [N, 3, H, W] on any device; the mean over the channels.

    Memory is bounded. ValueError for other dtypes or shapes, or a side under LEAST_SIDE.
    """
    check_pair(a, b, LEAST_SIDE, "MS-SSIM")
    many = max(1, _PIXELS // (a.shape[1] * a.shape[2] * a.shape[3]))
    parts = [_score(x, y) for x, y in zip(torch.split(a, many), torch.split(b, many), strict=True)]
    return torch.cat(parts)


def _score(a: Tensor, b: Tensor) -> Tensor:
    x, y = a.flatten(0, 1), b.flatten(0, 1)
    product = torch.ones(len(x), dtype=torch.float64, device=x.device)
    for power in POWERS[:-1]:
        product *= mean_over_windows(x, y, _SIDE, _contrast).relu() ** power
        x, y = _halve(x), _halve(y)
    product *= mean_over_windows(x, y, _SIDE, WINDOWS["gaussian"].score).relu() ** POWERS[-1]
    return product.view(a.shape[:2]).mean(dim=1)


def _contrast(x: Tensor, y: Tensor) -> Tensor:
    return gaussian_terms(x, y)[1]


def _halve(x: Tensor) -> Tensor:
    # Exact in float32: an 8-bit value averaged four times has 16 bits.
    padding = (x.shape[1] % 2, x.shape[2] % 2)
    return avg_pool2d(x.float().unsqueeze(1), 2, padding=padding).squeeze(1)
