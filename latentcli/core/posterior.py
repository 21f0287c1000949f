"""Describes what an encoder gives for an image: a diagonal Gaussian, or a single point.

`moments` names the tensors that describe it, as they are stored with --latents moments.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

LOGVAR_RANGE = (-30.0, 20.0)
"""Log-variances outside are clamped, as the KL autoencoders' own code does."""


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
        _check_shapes(self.mean, self.logsnr, "logsnr")

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
        return self.mode() + self.sigma * _noise(noise, self.mean, generator)

    def moments(self) -> dict[str, Tensor]:
        """mean and logsnr, float32."""
        return {"mean": self.mean.float(), "logsnr": self.logsnr.float()}


@dataclass(frozen=True, slots=True)
class GaussianPosterior:
    """Diagonal Gaussian of a KL autoencoder, z = mean + exp(logvar / 2) * noise."""

    mean: Tensor
    """[N, C, h, w], in the network's dtype."""
    logvar: Tensor
    """[N, C, h, w], log of the variance, in the network's dtype; used clamped to LOGVAR_RANGE."""

    def __post_init__(self) -> None:
        _check_shapes(self.mean, self.logvar, "logvar")

    def mode(self) -> Tensor:
        """The mean, float32 [N, C, h, w]."""
        return self.mean.float()

    def sample(
        self, noise: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """mean + exp(logvar / 2) * noise, float32 [N, C, h, w]; noise as in `Posterior.sample`."""
        std = torch.exp(0.5 * self.logvar.float().clamp(*LOGVAR_RANGE))
        return self.mode() + std * _noise(noise, self.mean, generator)

    def moments(self) -> dict[str, Tensor]:
        """mean and logvar (clamped), float32."""
        return {"mean": self.mean.float(), "logvar": self.logvar.float().clamp(*LOGVAR_RANGE)}


@dataclass(frozen=True, slots=True)
class PointPosterior:
    """The latent itself: what a deterministic encoder gives. There is nothing to sample."""

    mean: Tensor
    """[N, C, h, w], in the network's dtype."""

    def mode(self) -> Tensor:
        """The latent, float32 [N, C, h, w]."""
        return self.mean.float()

    def sample(
        self, noise: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """The latent again: its variance is zero."""
        return self.mode()

    def moments(self) -> dict[str, Tensor]:
        """The mean alone, float32."""
        return {"mean": self.mean.float()}


AnyPosterior = Posterior | GaussianPosterior | PointPosterior


def posterior_of(moments: Mapping[str, Tensor]) -> AnyPosterior:
    """The posterior of stored moments: mean, and logsnr or logvar. KeyError without a mean."""
    if "logsnr" in moments:
        return Posterior(moments["mean"], moments["logsnr"])
    if "logvar" in moments:
        return GaussianPosterior(moments["mean"], moments["logvar"])
    return PointPosterior(moments["mean"])


def _check_shapes(mean: Tensor, spread: Tensor, name: str) -> None:
    if mean.shape != spread.shape:
        raise ValueError(f"mean is {tuple(mean.shape)} but {name} is {tuple(spread.shape)}")


def _noise(noise: Tensor | None, mean: Tensor, generator: torch.Generator | None) -> Tensor:
    if noise is not None:
        return noise
    return torch.randn(mean.shape, generator=generator, device=mean.device, dtype=torch.float32)
