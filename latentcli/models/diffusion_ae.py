"""Builds autoencoders around the FCDM diffusion decoder, whatever network encodes.

The FCDM and DINAC families have the whitening, the decode loop and the precision policy in common.
Source: the published fcdm_diffae and dinac_ae packages.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from latentcli.core.posterior import AnyPosterior, PointPosterior, Posterior
from latentcli.core.types import LatentSpec
from latentcli.models.base import Autoencoder
from latentcli.models.diffusion_config import DiffusionAEConfig
from latentcli.models.fast.kept import kept
from latentcli.models.fcdm_network import FCDMDecoder
from latentcli.models.vp_diffusion import (
    InferenceConfig,
    VPSchedule,
    config_grid,
    draw_noise,
    sample,
)
from latentcli.models.whitening import dewhiten, whiten

STATS = ("latent_norm_running_mean", "latent_norm_running_var")


class DiffusionAutoencoder(Autoencoder):
    """Any encoder with the diffusion decoder; images NCHW in [-1, 1], latents [N, B, H/P, W/P].

    `encode` gives the whitened posterior mode, `decode` takes it. The encoder, a network from
    images to mean and logsnr [N, 2B, h, w] (or the mean alone), is None in a decoder alone.
    """

    is_diffusion = True
    default_space: str
    """Latent space id of a checkpoint that no preset describes."""
    least_divisor = 1
    """Least size divisor that the model's card asks for, whatever the patch size."""

    def __init__(
        self, config: DiffusionAEConfig, spec: LatentSpec | None, encoder: nn.Module | None
    ) -> None:
        super().__init__()
        self.config = config
        self.spec = spec or LatentSpec(
            channels=config.bottleneck_dim,
            downscale=config.patch_size,
            size_divisor=max(config.patch_size, self.least_divisor),
            space=self.default_space,
        )
        self.moments = ("mean",) if config.is_deterministic else ("mean", "logsnr")
        self.can_encode = encoder is not None
        self.encoder = encoder
        self.decoder = FCDMDecoder(config)
        self.register_buffer(STATS[0], torch.zeros(config.bottleneck_dim))
        self.register_buffer(STATS[1], torch.ones(config.bottleneck_dim))
        self.latent_norm_running_mean: Tensor
        self.latent_norm_running_var: Tensor
        self.schedule = VPSchedule(config.logsnr_min, config.logsnr_max)
        self._grids: dict[tuple[int, str, float, torch.device], Tensor] = {}

    @classmethod
    @abstractmethod
    def from_config(cls, config: Mapping[str, Any], spec: LatentSpec | None = None) -> Self:
        """An empty model from the keys of a config.json."""

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
        return self.decoder.dtype

    def _posterior(self, images: Tensor) -> AnyPosterior:
        assert self.encoder is not None
        projection: Tensor = self.encoder(images)
        if self.config.is_deterministic:
            return PointPosterior(projection)
        mean, logsnr = projection.chunk(2, dim=1)
        return Posterior(mean, logsnr)

    def _decode(
        self, latents: Tensor, frames: int, inference_config: Any, noise: Tensor | None
    ) -> Tensor:
        return self._sample(self.dewhiten(latents), inference_config, noise)

    def _sample(
        self, raw: Tensor, inference_config: InferenceConfig | None, noise: Tensor | None
    ) -> Tensor:
        """The sampler's last state, float32 [N, 3, H, W], of latents that are not whitened.

        Without `noise`, one CPU stream of the config's seed serves the whole batch.
        """
        config = inference_config or InferenceConfig()
        shape = (len(raw), self.config.in_channels, *self.spec.image_size(raw.shape))
        if noise is None:
            noise = draw_noise(shape, config.seed)
        if tuple(noise.shape) != shape:
            raise ValueError(f"noise is {tuple(noise.shape)}, it must be {shape}")
        return sample(
            lambda x_t, t: self.decoder(x_t, t, raw),
            lambda x_t, t: self.decoder(x_t, t, raw, drop_middle_blocks=True),
            noise.to(self.device, torch.float32) * self.config.pixel_noise_std,
            config,
            self.schedule,
            self._grid(config),
        )

    def _grid(self, config: InferenceConfig) -> Tensor | None:
        """The times of a config on the model's device, kept there: a copy would be waited for."""
        if torch.compiler.is_compiling():
            return None
        key = (config.num_steps, config.schedule, config.strength, self.device)
        with torch.inference_mode(False):  # a training loop may go through them later
            return kept(self._grids, key, lambda: config_grid(config).to(self.device))

    def whiten(self, latents: Tensor) -> Tensor:
        """Raw latents [N, B, h, w] to zero mean and unit variance per channel, float32."""
        return whiten(latents, *self._stats)

    def dewhiten(self, latents: Tensor) -> Tensor:
        """Inverse of `whiten`, float32."""
        return dewhiten(latents, *self._stats)

    @property
    def _stats(self) -> tuple[Tensor, Tensor, float]:
        eps = self.config.latent_running_stats_eps
        return self.latent_norm_running_mean, self.latent_norm_running_var, eps


def is_fp32_island(name: str) -> bool:
    """Tensors that the published precision policy keeps in float32 in a bfloat16 network."""
    return (
        "norm" in name
        or name.endswith((".layer_scale", ".grn.gamma", ".grn.beta", ".freqs", ".periods"))
        or name.startswith(("decoder.path_drop_mask_feature", "decoder.out_proj."))
    )
