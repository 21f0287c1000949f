"""The diagonal posterior that an encoder gives for an image, in float32."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Posterior:
    """Variance-preserving diagonal Gaussian, z = alpha * mean + sigma * noise.

    alpha² = sigmoid(logsnr) and sigma² = sigmoid(-logsnr), so alpha² + sigma² = 1.
    """

    mean: Tensor
    """[N, C, h, w], in the network's dtype."""
    logsnr: Tensor
    """[N, C, h, w], log(alpha² / sigma²), in the network's dtype."""

    def __post_init__(self) -> None:
        if self.mean.shape != self.logsnr.shape:
            raise ValueError(
                f"mean is {tuple(self.mean.shape)} but logsnr is {tuple(self.logsnr.shape)}"
            )

    @property
    def alpha(self) -> Tensor:
        """Signal scale, float32, in (0, 1)."""
        return torch.exp(0.5 * F.logsigmoid(self.logsnr.float()))

    @property
    def sigma(self) -> Tensor:
        """Noise scale, float32, in (0, 1)."""
        return torch.exp(0.5 * F.logsigmoid(-self.logsnr.float()))

    def mode(self) -> Tensor:
        """alpha * mean, float32 [N, C, h, w]: what is stored unless a sample is asked for."""
        return self.alpha * self.mean.float()

    def sample(
        self, noise: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """alpha * mean + sigma * noise, float32 [N, C, h, w].

        `noise` is standard normal in the shape of the mean; without it, it is drawn on the mean's
        device from `generator`.
        """
        if noise is None:
            noise = torch.randn(
                self.mean.shape, generator=generator, device=self.mean.device, dtype=torch.float32
            )
        return self.mode() + self.sigma * noise
