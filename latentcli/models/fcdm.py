"""The FCDM diffusion autoencoders: SemDisDiffAE, full_capacitor, capacitor_decoder and fcdm_nano.

An FCDM encoder gives a variance-preserving posterior; its whitened mode is the latent; a diffusion
decoder of the same blocks predicts the picture. capacitor_decoder is the decoder alone, for FLUX.2
latents. Source: the model cards and configs of data-archetype's repositories.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from torch import Tensor

from latentcli.core.errors import WeightsError
from latentcli.core.posterior import Posterior
from latentcli.core.types import LatentSpec
from latentcli.models.base import Autoencoder, Family
from latentcli.models.fcdm_network import FCDMDecoder, FCDMEncoder
from latentcli.models.vp_diffusion import InferenceConfig, VPSchedule, draw_noise, sample
from latentcli.models.whitening import dewhiten, whiten

ALIASES = {"batch_norm_eps": "latent_running_stats_eps"}
"""Config keys under the name that FLUX.2's own batch norm uses."""
STATS = ("latent_norm_running_mean", "latent_norm_running_var")


@dataclass(frozen=True, slots=True)
class FCDMConfig:
    """config.json of the family; the defaults are SemDisDiffAE's."""

    in_channels: int = 3
    patch_size: int = 16
    model_dim: int = 896
    encoder_depth: int = 4
    """0 where a checkpoint is a decoder alone."""
    decoder_depth: int = 8
    decoder_start_blocks: int = 2
    decoder_end_blocks: int = 2
    bottleneck_dim: int = 128
    mlp_ratio: float = 4.0
    depthwise_kernel_size: int = 7
    adaln_low_rank_rank: int = 128
    bottleneck_posterior_kind: str = "diagonal_gaussian"
    bottleneck_norm_mode: str = "disabled"
    logsnr_min: float = -10.0
    logsnr_max: float = 10.0
    pixel_noise_std: float = 0.558
    latent_running_stats_eps: float = 1e-4

    def __post_init__(self) -> None:
        for item in fields(self):
            self._check_number(item.name, item.default)
        for name, allowed in (
            ("bottleneck_posterior_kind", "diagonal_gaussian"),
            ("bottleneck_norm_mode", "disabled"),
        ):
            if getattr(self, name) != allowed:
                raise WeightsError(
                    f"The config says {name} = {getattr(self, name)!r}; only {allowed!r}, which"
                    " every published checkpoint of the FCDM family uses, can be run."
                )
        if self.middle_blocks < 1:
            raise WeightsError(
                f"The config has {self.decoder_depth} decoder blocks, but"
                f" {self.decoder_start_blocks} start and {self.decoder_end_blocks} end blocks leave"
                " none in the middle."
            )

    def _check_number(self, name: str, default: object) -> None:
        value = getattr(self, name)
        kinds = {int: (int,), float: (int, float)}.get(type(default))
        if kinds is None:
            return
        if type(value) not in kinds:
            what = "a whole number" if kinds == (int,) else "a number"
            raise WeightsError(f"The config says {name} = {value!r}; it must be {what}.")
        least = 0 if name == "encoder_depth" else 1
        if kinds == (int,) and value < least:
            raise WeightsError(f"The config says {name} = {value}; it must be at least {least}.")

    @classmethod
    def from_mapping(cls, config: Mapping[str, Any]) -> Self:
        """From a config.json's keys; missing ones take the defaults, unknown ones are errors."""
        config = {ALIASES.get(key, key): value for key, value in config.items()}
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(config) - known)
        if unknown:
            raise WeightsError(
                f"The config has keys that the FCDM family does not know: {', '.join(unknown)}."
                f" It knows {', '.join(sorted(known))}."
            )
        return cls(**config)

    @property
    def middle_blocks(self) -> int:
        return self.decoder_depth - self.decoder_start_blocks - self.decoder_end_blocks


class FCDMDiffAE(Autoencoder):
    """Encoder and diffusion decoder; images NCHW in [-1, 1], latents [N, B, H/P, W/P].

    `encode` gives the whitened posterior mode, `decode` takes it.
    """

    least_divisor = 1
    """Least size divisor that the model's card asks for, whatever the patch size."""

    def __init__(self, config: FCDMConfig, spec: LatentSpec | None = None) -> None:
        super().__init__()
        self.config = config
        self.spec = spec or LatentSpec(
            channels=config.bottleneck_dim,
            downscale=config.patch_size,
            size_divisor=max(config.patch_size, self.least_divisor),
            space="fcdm",
        )
        hidden = int(config.model_dim * config.mlp_ratio)
        shared = (config.in_channels, config.patch_size, config.model_dim)
        self.can_encode = config.encoder_depth > 0
        self.encoder = (
            FCDMEncoder(
                *shared,
                config.encoder_depth,
                config.bottleneck_dim,
                hidden,
                config.depthwise_kernel_size,
            )
            if self.can_encode
            else None
        )
        self.decoder = FCDMDecoder(
            *shared,
            (config.decoder_start_blocks, config.middle_blocks, config.decoder_end_blocks),
            config.bottleneck_dim,
            hidden,
            config.depthwise_kernel_size,
            config.adaln_low_rank_rank,
        )
        self.register_buffer(STATS[0], torch.zeros(config.bottleneck_dim))
        self.register_buffer(STATS[1], torch.ones(config.bottleneck_dim))
        self.latent_norm_running_mean: Tensor
        self.latent_norm_running_var: Tensor
        self.schedule = VPSchedule(config.logsnr_min, config.logsnr_max)

    @classmethod
    def from_config(cls, config: Mapping[str, Any], spec: LatentSpec | None = None) -> Self:
        """An empty model from the keys of a config.json."""
        return cls(FCDMConfig.from_mapping(config), spec)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str,
        *,
        revision: str | None = None,
        cache_dir: str | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> Self:
        """From a Hub repository or a local folder of config.json and model.safetensors."""
        from latentcli.models.registry import load_model

        model = load_model(
            name_or_path,
            revision=revision,
            cache_dir=cache_dir,
            device=device,
            dtype=dtype,
            build=cls.from_config,
        )
        assert isinstance(model, cls)
        return model

    @property
    def dtype(self) -> torch.dtype:
        return self.decoder.fuse_in.weight.dtype

    @property
    def device(self) -> torch.device:
        return self.decoder.fuse_in.weight.device

    def encode_posterior(self, images: Tensor) -> Posterior:
        """Posterior of images [N, 3, H, W] in [-1, 1]."""
        if self.encoder is None:
            raise WeightsError(
                "This checkpoint is a decoder alone; it has no encoder to encode with."
            )
        self.spec.latent_size(images.shape[-2], images.shape[-1])
        mean, logsnr = self.encoder(images.to(self.device)).chunk(2, dim=1)
        return Posterior(mean, logsnr)

    def encode(self, images: Tensor) -> Tensor:
        """Whitened posterior mode, float32 [N, B, h, w], of images [N, 3, H, W] in [-1, 1]."""
        return self.whiten(self.encode_posterior(images).mode())

    def decode(
        self,
        latents: Tensor,
        height: int | None = None,
        width: int | None = None,
        inference_config: InferenceConfig | None = None,
        *,
        noise: Tensor | None = None,
    ) -> Tensor:
        """Images [N, 3, height, width], float32, the sampler's last state: not clamped.

        `latents` are whitened [N, B, h, w]. `noise` is standard normal [N, 3, height, width];
        without it one CPU stream of the config's seed serves the whole batch.
        """
        self._image_shape(latents, height, width)
        return self.decode_raw(self.dewhiten(latents), height, width, inference_config, noise=noise)

    def decode_raw(
        self,
        latents: Tensor,
        height: int | None = None,
        width: int | None = None,
        inference_config: InferenceConfig | None = None,
        *,
        noise: Tensor | None = None,
    ) -> Tensor:
        """`decode` for latents that are not whitened."""
        config = inference_config or InferenceConfig()
        shape = self._image_shape(latents, height, width)
        if noise is None:
            noise = draw_noise(shape, config.seed)
        if tuple(noise.shape) != shape:
            raise ValueError(f"noise is {tuple(noise.shape)}, it must be {shape}")
        noise = noise.to(self.device, torch.float32) * self.config.pixel_noise_std
        z = latents.to(self.device)
        return sample(
            lambda x_t, t: self.decoder(x_t, t, z),
            lambda x_t, t: self.decoder(x_t, t, z, drop_middle_blocks=True),
            noise,
            config,
            self.schedule,
        )

    def whiten(self, latents: Tensor) -> Tensor:
        """Raw latents [N, B, h, w] to zero mean and unit variance per channel, float32."""
        return whiten(latents, *self._stats(latents), self.config.latent_running_stats_eps)

    def dewhiten(self, latents: Tensor) -> Tensor:
        """Inverse of `whiten`, float32."""
        return dewhiten(latents, *self._stats(latents), self.config.latent_running_stats_eps)

    def _stats(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        return (
            self.latent_norm_running_mean.to(latents.device),
            self.latent_norm_running_var.to(latents.device),
        )

    def _image_shape(
        self, latents: Tensor, height: int | None, width: int | None
    ) -> tuple[int, int, int, int]:
        n, channels, h, w = latents.shape
        f = self.spec.downscale
        height = h * f if height is None else height
        width = w * f if width is None else width
        if channels != self.spec.channels or self.spec.latent_size(height, width) != (h, w):
            raise ValueError(
                f"latents are {tuple(latents.shape)}; for {width}x{height} images they must be"
                f" [N, {self.spec.channels}, {height // f}, {width // f}]"
            )
        return n, self.config.in_channels, height, width


class FullCapacitor(FCDMDiffAE):
    """full_capacitor: eight encoder blocks; its card asks for sides that are multiples of 32."""

    least_divisor = 32


class CapacitorDecoder(FCDMDiffAE):
    """capacitor_decoder: FLUX.2 latents, 2x2-patchified to [N, 128, H/16, W/16], to images."""

    @classmethod
    def from_config(cls, config: Mapping[str, Any], spec: LatentSpec | None = None) -> Self:
        """A decoder alone, whatever encoder depth the config names."""
        return cls(replace(FCDMConfig.from_mapping(config), encoder_depth=0), spec)

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
        """Images [N, 3, height, width], float32, not clamped.

        Channel c * 4 + dy * 2 + dx of the latents is FLUX.2 channel c at (dy, dx) of each 2x2
        cell, batch-norm whitened unless `latents_are_flux2_whitened` is False.
        """
        run = super().decode if latents_are_flux2_whitened else self.decode_raw
        return run(latents, height, width, inference_config, noise=noise)


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


def is_fp32_island(name: str) -> bool:
    """Tensors that the published precision policy keeps in float32 in a bfloat16 network."""
    return (
        "norm" in name
        or name.endswith((".layer_scale", ".grn.gamma", ".grn.beta", ".freqs"))
        or name.startswith(("decoder.path_drop_mask_feature", "decoder.out_proj."))
    )


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
