"""Defines the one interface that jobs see of an autoencoder, and how a family declares itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import Tensor, nn

from latentcli.core.errors import WeightsError
from latentcli.core.posterior import AnyPosterior
from latentcli.core.types import LatentSpec
from latentcli.models.exact_products import exact_products


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Where a loaded model came from, for manifests and messages."""

    name: str
    """As it was asked for."""
    family: str
    """The module that its network is in."""
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
    samplers run in float32 whatever the network's dtype, and float32 is never TF32. Capabilities
    are declared, not probed.
    """

    spec: LatentSpec
    info: ModelInfo
    """Where the weights came from; set by whoever loads them."""
    can_encode: bool = True
    can_decode: bool = True
    predicts_class: bool = False
    """Whether `predict_class` gives a class token."""
    is_diffusion: bool = False
    """Whether decoding starts from noise and takes steps, as an inference config says."""
    is_video: bool = False
    """Whether the frames of a clip see each other in `decode_frames`."""
    moments: tuple[str, ...] = ("mean", "logsnr")
    """Names of the tensors that describe a posterior; ("mean",) where encoding is deterministic."""
    frames_per_chunk: int = 1
    """Frames that `decode_frames` is given at once, unless the user says otherwise."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The network's dtype: that of its ordinary weights."""
        return next(self.parameters()).dtype

    @final
    @exact_products
    def encode_posterior(self, images: Tensor) -> AnyPosterior:
        """Posterior of images [N, 3, H, W] in [-1, 1], in raw latents.

        ValueError where the size rule is broken, WeightsError where there is no encoder.
        """
        return self._posterior(self._checked(images))

    @final
    @exact_products
    def encode(self, images: Tensor) -> Tensor:
        """What the model's card calls its latents, float32 [N, C, h, w] of images [N, 3, H, W].

        That is the posterior's mode, whitened or scaled. Errors as of `encode_posterior`.
        """
        return self._encode(self._checked(images))

    @exact_products
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

        `latents` are as `encode` gives them, each an image for itself. A diffusion decoder takes an
        `inference_config`, and `noise`, standard normal [N, 3, height, width], which is drawn as
        the config's seed says where it is not given; other decoders ignore both. ValueError for
        latents of another shape, WeightsError where there is no decoder.
        """
        self._check_latents(latents, height, width)
        return self._decode(latents.to(self.device), 1, inference_config, noise).float()

    @final
    @exact_products
    def decode_frames(
        self,
        latents: Tensor,
        height: int | None = None,
        width: int | None = None,
        inference_config: Any = None,
        *,
        noise: Tensor | None = None,
    ) -> Tensor:
        """Consecutive frames of one clip, latents [T, C, h, w], to images [T, 3, H, W].

        As `decode`, but a temporal decoder (`is_video`) lets all T frames see each other.
        """
        self._check_latents(latents, height, width)
        frames = max(1, len(latents)) if self.is_video else 1
        return self._decode(latents.to(self.device), frames, inference_config, noise).float()

    def predict_class(self, latents: Tensor) -> Tensor:
        """Class token, float32 [N, features], of latents as `encode` gives them."""
        raise NotImplementedError("this model predicts no class token")

    @abstractmethod
    def whiten(self, latents: Tensor) -> Tensor:
        """Raw latents [N, C, h, w] to those of the spec's state (whitened or scaled), float32."""

    @abstractmethod
    def dewhiten(self, latents: Tensor) -> Tensor:
        """Inverse of `whiten`, float32."""

    def parameter_count(self) -> int:
        """Number of trainable values; buffers do not count."""
        return sum(p.numel() for p in self.parameters())

    def _posterior(self, images: Tensor) -> AnyPosterior:
        """`encode_posterior` of images that are checked and on the model's device."""
        raise NotImplementedError

    def _encode(self, images: Tensor) -> Tensor:
        """`encode` of images that are checked and on the model's device."""
        return self.whiten(self._posterior(images).mode())

    @abstractmethod
    def _decode(
        self, latents: Tensor, frames: int, inference_config: Any, noise: Tensor | None
    ) -> Tensor:
        """`decode` of latents that are checked and on the model's device, in any float dtype.

        `frames` of them in a row are one clip.
        """

    def _checked(self, images: Tensor) -> Tensor:
        if not self.can_encode:
            raise WeightsError(
                "This model has only a decoder: encode with a model whose latent space is"
                f" {self.spec.space}, and give its latents to this one."
            )
        self.spec.latent_size(images.shape[-2], images.shape[-1])
        return images.to(self.device)

    def _check_latents(self, latents: Tensor, height: int | None, width: int | None) -> None:
        if not self.can_decode:
            raise WeightsError(
                "This model has only an encoder: decode its latents with a model whose latent"
                f" space is {self.spec.space}."
            )
        self.spec.image_size(latents.shape, height, width)


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
    halves: bool = False
    """Whether a checkpoint may hold the encoder or the decoder alone."""
    space_keys: tuple[str, ...] = ()
    """Config keys that say what latents mean: a checkpoint's own must agree with its preset's."""
    fp32_islands: Callable[[str], bool] = lambda name: False
    """Whether a tensor of this name stays float32 when the network runs in bfloat16."""
