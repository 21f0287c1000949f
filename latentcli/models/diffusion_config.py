"""Reads and checks the config.json keys that the FCDM and DINAC families have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

from latentcli.core.errors import WeightsError
from latentcli.models.config_checks import INTEGER, NUMBER, check, misfit, refuse_unknown

ALIASES = {"batch_norm_eps": "latent_running_stats_eps"}
"""Config keys under the name that FLUX.2's own batch norm uses."""


@dataclass(frozen=True, slots=True)
class DiffusionAEConfig:
    """The keys of config.json that both families have, checked."""

    FAMILY_NAME: ClassVar[str]
    ALLOWED: ClassVar[Mapping[str, tuple[str, ...]]]
    """Values of the text keys that can be run."""
    LEAST: ClassVar[Mapping[str, int]] = {}
    """Least values of whole numbers that need not be positive."""

    in_channels: int = 3
    patch_size: int = 16
    model_dim: int = 896
    encoder_depth: int = 4
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
            value, least = getattr(self, item.name), self.LEAST.get(item.name, 1)
            if type(item.default) is float:
                check(item.name, value, NUMBER)
            elif type(item.default) is int:
                check(item.name, value, INTEGER)
                if value < least:
                    raise misfit(item.name, value, f"at least {least}")
        for name, allowed in self.ALLOWED.items():
            if getattr(self, name) not in allowed:
                raise WeightsError(
                    f"The config says {name} = {getattr(self, name)!r}; only"
                    f" {' and '.join(map(repr, allowed))}, as in the published checkpoints of the"
                    f" {self.FAMILY_NAME} family, can be run."
                )
        if self.middle_blocks < 1:
            raise WeightsError(
                f"The config has {self.decoder_depth} decoder blocks, but"
                f" {self.decoder_start_blocks} start and {self.decoder_end_blocks} end blocks leave"
                " none in the middle."
            )

    @classmethod
    def from_mapping(cls, config: Mapping[str, Any]) -> Self:
        """From a config.json's keys; missing ones take the defaults, unknown ones are errors."""
        config = {ALIASES.get(key, key): value for key, value in config.items()}
        refuse_unknown(config, {f.name for f in fields(cls)}, f"the {cls.FAMILY_NAME} family")
        return cls(**config)

    @property
    def middle_blocks(self) -> int:
        return self.decoder_depth - self.decoder_start_blocks - self.decoder_end_blocks

    @property
    def hidden(self) -> int:
        """Width of the networks' bottleneck layers, encoder and decoder."""
        return int(self.model_dim * self.mlp_ratio)

    @property
    def is_deterministic(self) -> bool:
        """Whether the encoder gives latents alone, without their logsnr."""
        return self.bottleneck_posterior_kind == "deterministic"
