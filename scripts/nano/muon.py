"""Muon: momentum whose matrices are orthogonalised before each step (Jordan et al., 2024)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Quintic coefficients of the reference; five rounds bring singular values to about 1."""


def orthogonalised(matrices: Tensor) -> Tensor:
    """The nearest semi-orthogonal matrices to [n, rows, columns], roughly, in bfloat16."""
    a, b, c = NEWTON_SCHULZ
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.bfloat16().mT if tall else matrices.bfloat16()
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    result: Tensor = (x.mT if tall else x).float()
    return result


class Muon:
    """Nesterov momentum with orthogonalised steps; matrices of one shape go together."""

    def __init__(self, parameters: Iterable[Tensor], momentum: float = 0.95) -> None:
        self.momentum = momentum
        self.groups: dict[tuple[int, ...], list[Tensor]] = {}
        for parameter in parameters:
            self.groups.setdefault(tuple(parameter.shape), []).append(parameter)
        self.buffers = {
            shape: torch.zeros(len(group), *shape, device=group[0].device)
            for shape, group in self.groups.items()
        }

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """One step; the rate is the change's spectral norm, times sqrt(rows / columns) if tall."""
        for shape, group in self.groups.items():
            gradients = torch.stack([p.grad for p in group if p.grad is not None])
            buffer = self.buffers[shape].lerp_(gradients, 1.0 - self.momentum)
            steps = orthogonalised(gradients.lerp(buffer, self.momentum))
            scale = rate * max(1.0, shape[0] / shape[1]) ** 0.5
            for parameter, step in zip(group, steps, strict=True):
                parameter.sub_(step, alpha=scale)
                parameter.grad = None
