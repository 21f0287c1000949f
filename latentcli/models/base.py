"""The one interface that jobs see of an autoencoder, and how a family declares itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from latentcli.core.posterior import Posterior
from latentcli.core.types import LatentSpec


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Where a loaded model came from, for manifests and messages."""

    name: str
    """As it was asked for."""
    family: str
    origin: str
    """flag, folder, env, bundled, cached, hub or random."""
    preset_name: str | None = None
    repo: str | None = None
    revision: str | None = None
    """Commit of the repository, where it is known."""
    weights_path: str | None = None
    weights_sha256: str | None = None
    psnr_floor: float | None = None
    """The preset's floor for the self-check, in dB."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """What the network was built from."""


class Autoencoder(nn.Module, ABC):
    """Images to latents and back.

    Images are NCHW float in [-1, 1]; latents are [N, C, h, w]. Whitening, posterior maths and
    samplers run in float32 whatever the network's dtype. Capabilities are declared, not probed.
    """

    spec: LatentSpec
    info: ModelInfo
    """Where the weights came from; set by whoever loads them."""
    can_encode: bool = True
    can_decode: bool = True
    predicts_class: bool = False
    is_video: bool = False

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The network's dtype: that of its ordinary weights."""
        raise NotImplementedError

    @abstractmethod
    def encode_posterior(self, images: Tensor) -> Posterior:
        """Posterior of images [N, 3, H, W] in [-1, 1]; ValueError where the size rule is broken."""

    @abstractmethod
    def encode(self, images: Tensor) -> Tensor:
        """What the model's card calls its latents, [N, C, h, w]: the whitened mode."""

    @abstractmethod
    def decode(
        self,
        latents: Tensor,
        height: int | None = None,
        width: int | None = None,
        inference_config: Any = None,
        *,
        noise: Tensor | None = None,
    ) -> Tensor:
        """Images [N, 3, height, width], about [-1, 1] and not clamped, float32.

        `latents` are as `encode` gives them. `noise` is standard normal [N, 3, H, W] for models
        that start from noise; without it, it is drawn as the inference config's seed says.
        """

    @abstractmethod
    def whiten(self, latents: Tensor) -> Tensor:
        """Raw latents [N, C, h, w] to zero mean and unit variance per channel, float32."""

    @abstractmethod
    def dewhiten(self, latents: Tensor) -> Tensor:
        """Inverse of `whiten`, float32."""

    def parameter_count(self) -> int:
        """Number of trainable values; buffers do not count."""
        return sum(p.numel() for p in self.parameters())


@dataclass(frozen=True, slots=True)
class Family:
    """One network structure, as its module declares it in a constant named FAMILY."""

    name: str
    """The module's name."""
    recognises: Callable[[Mapping[str, Any]], bool]
    """Whether a config.json's keys are this family's."""
    build: Callable[[Mapping[str, Any], LatentSpec | None], Autoencoder]
    """Config to an empty model; called on the meta device. The spec overrides the config's own
    guess of latent space and size divisor."""
    adapt: Callable[[dict[str, Tensor], Autoencoder], dict[str, Tensor]]
    """Published tensor names and forms to the model's own; unknown names pass through unchanged."""
    infer: Callable[[Mapping[str, Any], frozenset[str]], dict[str, Any]] = lambda config, _: dict(
        config
    )
    """The config completed by what only a checkpoint's tensor names tell."""
    tiny: Mapping[str, Any] = field(default_factory=dict)
    """A toy config for the contract tests."""
    fp32_islands: Callable[[str], bool] = lambda name: False
    """Whether a tensor of this name stays float32 when the network runs in bfloat16."""
