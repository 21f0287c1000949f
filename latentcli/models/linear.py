"""Builds a linear code of patches: latents are coefficients of principal components.

Nothing is learned but a basis, so this is the baseline that a learned model should beat, and the
example of docs/internals/adding-a-model.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentcli.core.errors import WeightsError
from latentcli.core.posterior import PointPosterior
from latentcli.core.types import LatentSpec
from latentcli.models.base import Autoencoder, Family

KEYS = ("patch_size", "pca_components")
"""What a config.json of this family says: the patch's side P and the latent channels C."""


class LinearAutoencoder(Autoencoder):
    """Orthonormal patch code; images NCHW in [-1, 1], latents [N, C, H/P, W/P] of unit variance.

    Encoding is deterministic and everything runs in float32, whatever dtype is asked for.
    """

    moments = ("mean",)

    def __init__(self, patch_size: int, channels: int, spec: LatentSpec | None = None) -> None:
        super().__init__()
        self.spec = spec or LatentSpec(channels, patch_size, patch_size, "linear")
        pixels = 3 * patch_size**2
        self.basis = nn.Parameter(torch.zeros(channels, pixels))
        self.patch_mean = nn.Parameter(torch.zeros(pixels))
        self.register_buffer("running_var", torch.ones(channels))
        self.running_var: Tensor

    def _posterior(self, images: Tensor) -> PointPosterior:
        """Raw coefficients, float32: basis (patch - mean)."""
        size = self.spec.downscale
        kernel = self.basis.view(-1, 3, size, size)
        bias = -self.basis @ self.patch_mean
        return PointPosterior(F.conv2d(images.to(self.dtype), kernel, bias, stride=size))

    def _decode(
        self, latents: Tensor, frames: int, inference_config: Any, noise: Tensor | None
    ) -> Tensor:
        """The basis is orthonormal, so its transpose decodes."""
        patches = F.conv2d(self.dewhiten(latents), self.basis.T[:, :, None, None], self.patch_mean)
        return F.pixel_shuffle(patches, self.spec.downscale)

    def whiten(self, latents: Tensor) -> Tensor:
        """Coefficients [N, C, h, w] to unit variance per channel, float32; their mean is zero."""
        return latents.float() / self._deviation(latents.device)

    def dewhiten(self, latents: Tensor) -> Tensor:
        """Inverse of `whiten`, float32."""
        return latents.float() * self._deviation(latents.device)

    def _deviation(self, device: torch.device) -> Tensor:
        return self.running_var.to(device).sqrt()[:, None, None]


def recognises(config: Mapping[str, Any]) -> bool:
    """The number of components is a key of this family alone."""
    return "pca_components" in config


def build(config: Mapping[str, Any], spec: LatentSpec | None) -> LinearAutoencoder:
    """An empty model; WeightsError where the config is not two positive whole numbers."""
    if set(config) != set(KEYS) or not all(type(config[k]) is int and config[k] > 0 for k in KEYS):
        raise WeightsError(
            f"The config of a linear model must say {' and '.join(KEYS)}, positive whole numbers;"
            f" it is {dict(config)}."
        )
    return LinearAutoencoder(config["patch_size"], config["pca_components"], spec)


FAMILY = Family(
    name="linear",
    recognises=recognises,
    build=build,
    adapt=lambda state, model: state,
    # So small that bfloat16 would save nothing and cost precision.
    fp32_islands=lambda name: True,
    tiny={"patch_size": 4, "pca_components": 8},
)
