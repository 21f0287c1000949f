"""Builds the TAESD family: small autoencoders for the latents of large VAEs.

taesd, taesdxl, taesd3, taef1 and taef2 stand in for the VAEs of Stable Diffusion and FLUX; TAE-192
is a wider decoder. Their latents are those that the diffusion models see: scaled, or whitened for
FLUX.2. Source: madebyollin/taesd; diffusers' AutoencoderTiny; arXiv:2503.04871 (TAE-192).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from latentcli.core.posterior import PointPosterior
from latentcli.core.types import LatentSpec
from latentcli.models.base import Autoencoder, Family
from latentcli.models.tiny_config import CLASS_NAME, TinyConfig
from latentcli.models.tiny_network import soft_clamp, tiny_decoder, tiny_encoder

PTH_NAME = re.compile(r"(?:(encoder|decoder)\.)?(\d+)\.(.+)")
"""A tensor of the .pth files: layer number and the rest; a pair of files has prefixes."""
PTH_SHIFT = {"encoder": 0, "decoder": 1}
"""What the .pth files' layer numbers are above this network's: they count the clamp as layer 0."""
POOL = ".pool."


class TinyAutoencoder(Autoencoder):
    """Encoder and decoder, or one of them; images NCHW in [-1, 1].

    Latents are [N, C, h, w], scaled (or whitened), with C = latent_channels * patch_size². Encoding
    is deterministic: `encode` gives the network's output itself. In bfloat16 all weights are
    bfloat16; the group norm's statistics and the latents' clamp are computed in float32.
    """

    moments = ("mean",)

    def __init__(self, config: TinyConfig, spec: LatentSpec | None = None) -> None:
        super().__init__()
        self.config = config
        self.spec = spec or LatentSpec(
            channels=config.channels,
            downscale=config.downscale,
            size_divisor=config.downscale,
            space="tiny",
            state="whitened" if config.latents_std else "scaled",
        )
        self.can_encode, self.can_decode = config.has_encoder, config.has_decoder
        latent, pool = config.latent_channels, config.pool
        self.encoder = (
            tiny_encoder(latent, config.encoder_dim, config.num_encoder_blocks, pool=pool)
            if self.can_encode
            else None
        )
        self.decoder = (
            tiny_decoder(latent, config.decoder_dim, config.num_decoder_blocks, pool=pool)
            if self.can_decode
            else None
        )

    def _posterior(self, images: Tensor) -> PointPosterior:
        return PointPosterior(self.dewhiten(self._encode(images)))

    def _encode(self, images: Tensor) -> Tensor:
        assert self.encoder is not None
        latents = self.encoder(((images.float() + 1) / 2).to(self.dtype)).float()
        return F.pixel_unshuffle(latents, self.config.patch_size)

    def _decode(
        self, latents: Tensor, frames: int, inference_config: Any, noise: Tensor | None
    ) -> Tensor:
        assert self.decoder is not None
        z = F.pixel_shuffle(latents.float(), self.config.patch_size)
        images: Tensor = self.decoder(soft_clamp(z).to(self.dtype)).float() * 2 - 1
        return images * 2 - 1 if self.config.output_range == (0.0, 1.0) else images

    def whiten(self, latents: Tensor) -> Tensor:
        """Raw latents [N, C, h, w] to scaled (or whitened) ones, (raw - shift) * scale, float32."""
        shift, scale = self._shift_and_scale(latents.device)
        return (latents.float() - shift) * scale

    def dewhiten(self, latents: Tensor) -> Tensor:
        """Inverse of `whiten`, float32."""
        shift, scale = self._shift_and_scale(latents.device)
        return latents.float() / scale + shift

    def _shift_and_scale(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Made anew for each call: as buffers they would be missing from every checkpoint."""
        shift = self.config.latents_mean or (self.config.raw_shift,)
        scale = tuple(1 / std for std in self.config.latents_std) or (self.config.raw_scale,)
        columns = torch.tensor([shift, scale], device=device)[..., None, None]
        return columns[0], columns[1]


def recognises(config: Mapping[str, Any]) -> bool:
    """diffusers' class by its name, or the keys that only this family has both of."""
    if "_class_name" in config:
        return bool(config["_class_name"] == CLASS_NAME)
    return {"num_encoder_blocks", "num_decoder_blocks"} <= set(config)


def infer(config: Mapping[str, Any], names: frozenset[str]) -> dict[str, Any]:
    """Which halves a checkpoint holds and, unless the config says, whether it has pool branches.

    Names of neither half change nothing: the strict check then lists them.
    """
    found = {name.split(".")[0] for name in _model_names(names).values()}
    halves = {f"has_{half}": half in found for half in PTH_SHIFT}
    pool = {"pool": any(POOL in name for name in names)}
    return pool | dict(config) | (halves if any(halves.values()) else {})


def adapt(state: dict[str, Tensor], model: Autoencoder) -> dict[str, Tensor]:
    """Names of the .pth files, single or as a pair, to diffusers' names."""
    names = _model_names(state)
    return {names[name]: tensor for name, tensor in state.items()}


def _model_names(names: Iterable[str]) -> dict[str, str]:
    """Our name of each tensor.

    Without a prefix, only an encoder's .pth has a layer 0, and only diffusers' encoder a layer 1
    with weights.
    """
    names = list(names)
    bare = "encoder" if any(name.startswith(("0.", "layers.1.")) for name in names) else "decoder"
    return {name: _model_name(name, bare) for name in names}


def _model_name(name: str, bare: str) -> str:
    if name.startswith("layers."):
        return f"{bare}.{name}"
    match = PTH_NAME.fullmatch(name)
    if match is None:
        return name
    half = match[1] or bare
    layer = int(match[2]) - PTH_SHIFT[half]
    return f"{half}.layers.{layer}.{match[3]}" if layer >= 0 else name


FAMILY = Family(
    name="tiny",
    recognises=recognises,
    build=lambda config, spec: TinyAutoencoder(TinyConfig.from_mapping(config), spec),
    adapt=adapt,
    infer=infer,
    halves=True,
    tiny={
        "latent_channels": 4,
        "encoder_block_out_channels": [8, 8, 8],
        "decoder_block_out_channels": [16, 16, 16],
        "num_encoder_blocks": [1, 1, 1],
        "num_decoder_blocks": [1, 1, 1],
        "pool": True,
        "patch_size": 2,
        "latents_mean": [0.1 * channel for channel in range(16)],
        "latents_std": [1.0 + 0.1 * channel for channel in range(16)],
    },
)
