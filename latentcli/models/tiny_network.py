"""Defines the TAESD networks, between images in [0, 1] and latents.

Layouts: [N, C, h, w] throughout. Attribute names and layer numbers are diffusers' tensor names, so
they do not change. Source: madebyollin/taesd (MIT); the pool branch is that of its taef2.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

CLAMP = 3.0
"""Latents are bent into (-CLAMP, CLAMP) before decoding."""
POOL_GROUPS = 4
POOL_RATIO = 4
"""Channels inside the pool branch, per channel outside."""


def soft_clamp(latents: Tensor) -> Tensor:
    """Latents bent into (-CLAMP, CLAMP), as the decoder takes them."""
    return CLAMP * torch.tanh(latents / CLAMP)


class TinyBlock(nn.Module):
    """Three 3x3 convolutions and an identity, at [N, D, h, w].

    With `pool`, a branch whose group norm averages over the whole picture is added first: the
    block then sees beyond its window, so tiles of a picture give other results than the whole.
    """

    def __init__(self, dim: int, *, pool: bool = False) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(dim, dim, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(dim, dim, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(dim, dim, 3, padding=1),
        )
        self.pool = _pool(dim) if pool else None

    def forward(self, x: Tensor) -> Tensor:
        if self.pool is not None:
            x = x + self.pool(x)
        return torch.relu(self.conv(x) + x)


def _pool(dim: int) -> nn.Sequential:
    inner = POOL_RATIO * dim
    return nn.Sequential(
        nn.Conv2d(dim, inner, 1, bias=False),
        nn.GroupNorm(POOL_GROUPS, inner, eps=1e-5),
        nn.ReLU(),
        nn.Conv2d(inner, dim, 1, bias=False),
    )


def tiny_encoder(latent: int, dim: int, blocks: tuple[int, ...], *, pool: bool) -> nn.Sequential:
    """Images [N, 3, H, W] in [0, 1] to latents [N, C, h, w]; every stage but the first halves.

    `blocks` counts each stage's blocks. `pool` gives the last stage's their pool branch.
    """
    layers: list[nn.Module] = []
    for stage, count in enumerate(blocks):
        first, last = stage == 0, stage == len(blocks) - 1
        layers.append(
            nn.Conv2d(3, dim, 3, padding=1)
            if first
            else nn.Conv2d(dim, dim, 3, stride=2, padding=1, bias=False)
        )
        layers += [TinyBlock(dim, pool=pool and last) for _ in range(count)]
    return _named(*layers, nn.Conv2d(dim, latent, 3, padding=1))


def tiny_decoder(latent: int, dim: int, blocks: tuple[int, ...], *, pool: bool) -> nn.Sequential:
    """Latents [N, C, h, w] to images [N, 3, H, W], about [0, 1]; every stage but the last doubles.

    The latents are `soft_clamp`ed already: that is done in float32, whatever this network's dtype.
    `blocks` counts each stage's blocks. `pool` gives the first stage's their pool branch.
    """
    layers: list[nn.Module] = [nn.Conv2d(latent, dim, 3, padding=1), nn.ReLU()]
    for stage, count in enumerate(blocks):
        first, last = stage == 0, stage == len(blocks) - 1
        layers += [TinyBlock(dim, pool=pool and first) for _ in range(count)]
        layers += (
            [nn.Conv2d(dim, 3, 3, padding=1)]
            if last
            else [nn.Upsample(scale_factor=2), nn.Conv2d(dim, dim, 3, padding=1, bias=False)]
        )
    return _named(*layers)


def _named(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(layers=nn.Sequential(*layers)))
