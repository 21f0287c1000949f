"""Builds the FCDM models: SemDisDiffAE, full_capacitor, capacitor_decoder and fcdm_nano.

An FCDM encoder gives a variance-preserving posterior; its whitened mode is the latent; a diffusion
decoder of the same blocks predicts the picture. capacitor_decoder is the decoder alone, for FLUX.2
latents. Source: the model cards and configs of data-archetype's repositories.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from torch import Tensor

from latentcli.core.types import LatentSpec
from latentcli.models.base import Autoencoder, Family
from latentcli.models.diffusion_ae import STATS, DiffusionAutoencoder, is_fp32_island
from latentcli.models.diffusion_config import DiffusionAEConfig
from latentcli.models.exact_products import exact_products
from latentcli.models.fcdm_network import FCDMEncoder
from latentcli.models.vp_diffusion import InferenceConfig


@dataclass(frozen=True, slots=True)
class FCDMConfig(DiffusionAEConfig):
    """config.json of the family; the defaults are SemDisDiffAE's. Encoder depth 0: no encoder."""

    FAMILY_NAME: ClassVar[str] = "FCDM"
    ALLOWED: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "bottleneck_posterior_kind": ("diagonal_gaussian",),
        "bottleneck_norm_mode": ("disabled",),
    }
    LEAST: ClassVar[Mapping[str, int]] = {"encoder_depth": 0}


class FCDMDiffAE(DiffusionAutoencoder):
    """FCDM encoder and diffusion decoder; images NCHW in [-1, 1], latents [N, B, H/P, W/P]."""

    default_space = "fcdm"

    def __init__(self, config: FCDMConfig, spec: LatentSpec | None = None) -> None:
        super().__init__(config, spec, FCDMEncoder(config) if config.encoder_depth else None)

    @classmethod
    def from_config(cls, config: Mapping[str, Any], spec: LatentSpec | None = None) -> Self:
        """An empty model from the keys of a config.json."""
        return cls(FCDMConfig.from_mapping(config), spec)


class FullCapacitor(FCDMDiffAE):
    """full_capacitor: eight encoder blocks; its card asks for sides that are multiples of 32."""

    least_divisor = 32


class CapacitorDecoder(FCDMDiffAE):
    """capacitor_decoder: FLUX.2 latents, 2x2-patchified to [N, 128, H/16, W/16], to images."""

    @classmethod
    def from_config(cls, config: Mapping[str, Any], spec: LatentSpec | None = None) -> Self:
        """A decoder alone, whatever encoder depth the config names."""
        return cls(replace(FCDMConfig.from_mapping(config), encoder_depth=0), spec)

    @exact_products
    def decode(
        self,
        latents: Tensor,
        height: int | None = None,
        width: int | None = None,
        inference_config: InferenceConfig | None = None,
        *,
        noise: Tensor | None = None,
        latents_are_flux2_whitened: bool = True,
    ) -> Tensor:
        """As `Autoencoder.decode`: images [N, 3, height, width], float32, not clamped.

        Channel c * 4 + dy * 2 + dx of the latents is FLUX.2 channel c at (dy, dx) of each 2x2
        cell, batch-norm whitened unless `latents_are_flux2_whitened` is False.
        """
        if latents_are_flux2_whitened:
            return super().decode(latents, height, width, inference_config, noise=noise)
        self._check_latents(latents, height, width)
        return self._sample(latents.to(self.device), inference_config, noise)


def recognises(config: Mapping[str, Any]) -> bool:
    """The keys that every FCDM config has and no DINAC one lacks its own for."""
    return {"model_dim", "adaln_low_rank_rank"} <= set(config) and "encoder_mlp_type" not in config


def build(config: Mapping[str, Any], spec: LatentSpec | None) -> FCDMDiffAE:
    """An autoencoder, or a decoder alone where the config has no encoder blocks."""
    depth = FCDMConfig.from_mapping(config).encoder_depth
    model = FCDMDiffAE if depth else CapacitorDecoder
    return model.from_config(config, spec)


def infer(config: Mapping[str, Any], names: frozenset[str]) -> dict[str, Any]:
    """A checkpoint without encoder tensors is a decoder alone, whatever its config leaves open."""
    has_encoder = any(name.startswith("encoder.") for name in names)
    return dict(config) if has_encoder else {**config, "encoder_depth": 0}


def adapt(state: dict[str, Tensor], model: Autoencoder) -> dict[str, Tensor]:
    """Published spellings to the model's names: decoder prefix, statistics, patchify as 1x1."""
    expected = model.state_dict()
    if "fuse_skip.weight" in state:
        bare = {name for name in expected if name.startswith("decoder.")}
        state = {f"decoder.{k}" if f"decoder.{k}" in bare else k: v for k, v in state.items()}
    for target, endings in zip(STATS, (("mean",), ("var",)), strict=True):
        found = [
            k
            for k, v in state.items()
            if k not in expected and k.endswith(endings) and v.shape == expected[target].shape
        ]
        if target not in state and len(found) == 1:
            state = {target if k == found[0] else k: v for k, v in state.items()}
    return {name: _as_patch_kernel(name, tensor, expected) for name, tensor in state.items()}


def _as_patch_kernel(name: str, tensor: Tensor, expected: Mapping[str, Tensor]) -> Tensor:
    """[D, 3PP, 1, 1] holds the same numbers in the same order as [D, 3, P, P]."""
    wanted = expected.get(name)
    if wanted is None or not name.endswith("patchify.proj.weight"):
        return tensor
    dim, channels, patch, _ = wanted.shape
    if tensor.shape == (dim, channels * patch * patch, 1, 1):
        return tensor.reshape(wanted.shape)
    return tensor


FAMILY = Family(
    name="fcdm",
    recognises=recognises,
    build=build,
    adapt=adapt,
    infer=infer,
    fp32_islands=is_fp32_island,
    tiny={
        "model_dim": 32,
        "encoder_depth": 1,
        "decoder_depth": 3,
        "decoder_start_blocks": 1,
        "decoder_end_blocks": 1,
        "bottleneck_dim": 8,
        "adaln_low_rank_rank": 4,
    },
)
