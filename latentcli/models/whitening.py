"""Whitens latents [N, C, h, w] by per-channel statistics, in float32."""

from __future__ import annotations

import torch
from torch import Tensor


def _column(values: Tensor, latents: Tensor) -> Tensor:
    return values.to(latents.device).float()[None, :, None, None]


def whiten(latents: Tensor, mean: Tensor, var: Tensor, eps: float) -> Tensor:
    """(latents - mean) / sqrt(var + eps) per channel; `mean` and `var` are [C], on any device."""
    return (latents.float() - _column(mean, latents)) / torch.sqrt(_column(var, latents) + eps)


def dewhiten(latents: Tensor, mean: Tensor, var: Tensor, eps: float) -> Tensor:
    """Inverse of `whiten`."""
    return latents.float() * torch.sqrt(_column(var, latents) + eps) + _column(mean, latents)
