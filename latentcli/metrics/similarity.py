"""Computes the cosine similarity between two models' latents of the same images."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class LatentCosine(NamedTuple):
    """Cosines, -1 to 1, float64 [N] on the latents' device."""

    whole: Tensor
    """Of the latent as one vector of C * h * w numbers."""
    positions: Tensor
    """The mean over the h * w positions of the cosine between their vectors of C channels."""


def latent_cosine(a: Tensor, b: Tensor) -> LatentCosine:
    """Cosine similarity of float [N, C, h, w] latents, in float64.

    A vector of zeros has no direction: its cosine with any other is 0, with another of zeros 1.
    ValueError for unequal shapes, other ranks, latents without elements, or whole numbers.
    """
    if a.shape != b.shape or a.ndim != 4 or not a[:1].numel():
        raise ValueError(
            f"latents are {tuple(a.shape)} and {tuple(b.shape)}, not two [N, C, h, w] of equal"
            " shape"
        )
    if not a.is_floating_point() or not b.is_floating_point():
        raise ValueError(f"latents are {a.dtype} and {b.dtype}, both must be floating point")
    x, y = a.double(), b.double()
    whole = _cosine(x.flatten(1), y.flatten(1))
    return LatentCosine(whole, _cosine(x, y).mean(dim=(1, 2)))


def _cosine(x: Tensor, y: Tensor) -> Tensor:
    """Along dimension 1. Scaled by their largest numbers first, so that no square overflows."""
    x, y = _scaled(x), _scaled(y)
    norm_x, norm_y = x.norm(dim=1), y.norm(dim=1)
    cosine = ((x * y).sum(dim=1) / (norm_x * norm_y)).clamp(-1, 1)
    none_x, none_y = norm_x == 0, norm_y == 0
    return torch.where(none_x | none_y, (none_x & none_y).double(), cosine)


def _scaled(x: Tensor) -> Tensor:
    largest = x.abs().amax(dim=1, keepdim=True)
    return x / torch.where(largest == 0, 1.0, largest)
