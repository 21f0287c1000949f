"""Checks the config.json or preset of a TAESD network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from latentcli.core.errors import WeightsError
from latentcli.models import config_checks as checks
from latentcli.models.config_checks import Check, check, frozen, list_of, refuse_unknown

CLASS_NAME = "AutoencoderTiny"
"""diffusers' name for the network."""
FIXED = {
    "in_channels": 3,
    "out_channels": 3,
    "act_fn": "relu",
    "upsample_fn": "nearest",
    "upsampling_scaling_factor": 2,
    "scaling_factor": 1.0,
    "shift_factor": 0.0,
}
"""diffusers' keys that have one value in every published checkpoint. Their scaling factor is that
of the network's own latents, which are scaled already; that from raw ones is raw_scale."""
UNUSED = {"block_out_channels", "force_upcast", "latent_magnitude", "latent_shift"}
"""diffusers' keys that encode and decode do not depend on."""


@dataclass(frozen=True, slots=True)
class TinyConfig:
    """diffusers' config keys that differ between checkpoints, then our own; defaults are taesd's.

    WeightsError for values that no network can be built from.
    """

    latent_channels: int = 4
    encoder_block_out_channels: tuple[int, ...] = (64, 64, 64, 64)
    decoder_block_out_channels: tuple[int, ...] = (64, 64, 64, 64)
    num_encoder_blocks: tuple[int, ...] = (1, 3, 3, 3)
    num_decoder_blocks: tuple[int, ...] = (3, 3, 3, 1)
    pool: bool = False
    """Whether the blocks at latent resolution have the pool branch of taef2."""
    patch_size: int = 1
    """Side of the square of latent cells that is folded into channels: c * 4 + 2 * dy + dx."""
    raw_scale: float = 1.0
    """Scaled latents are (raw - raw_shift) * raw_scale; raw ones are the large VAE's."""
    raw_shift: float = 0.0
    latents_mean: tuple[float, ...] = ()
    """Per channel after folding, of raw latents; with latents_std instead of shift and scale."""
    latents_std: tuple[float, ...] = ()
    output_range: tuple[float, ...] = (-1.0, 1.0)
    """What diffusers' decode gives with these weights; [0, 1] is mapped to [-1, 1]."""
    has_encoder: bool = True
    has_decoder: bool = True

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            check(item.name, list(value) if type(value) is tuple else value, CHECKS[item.name])
        self._check_stages()
        self._check_statistics()

    def _check_stages(self) -> None:
        names = [n for n in CHECKS if n.endswith(("_block_out_channels", "coder_blocks"))]
        if len({len(getattr(self, name)) for name in names}) > 1:
            counts = ", ".join(f"{name} {len(getattr(self, name))}" for name in names)
            raise WeightsError(f"The config names different numbers of stages: {counts}.")

    def _check_statistics(self) -> None:
        counts = (len(self.latents_mean), len(self.latents_std))
        if counts not in ((0, 0), (self.channels, self.channels)):
            raise WeightsError(
                f"The config has {counts[0]} latents_mean and {counts[1]} latents_std; there must"
                f" be {self.channels} of each, one per latent channel, or none."
            )

    @classmethod
    def from_mapping(cls, config: Mapping[str, Any]) -> Self:
        """From a config.json's keys; missing ones take the defaults, unknown ones are errors."""
        known = {f.name for f in fields(cls)}
        # A leading underscore marks notes of the tool that wrote the file.
        given = {k: v for k, v in config.items() if not k.startswith("_") and k not in UNUSED}
        refuse_unknown(given, known | set(FIXED) | UNUSED, "the TAESD family")
        for name, only in FIXED.items():
            if given.get(name, only) != only:
                raise WeightsError(
                    f"The config says {name} = {given[name]!r}; only {only!r}, which every"
                    " published checkpoint of the TAESD family uses, can be run."
                )
        kept = {k: v for k, v in given.items() if k in known}
        return cls(**{k: frozen(v) for k, v in kept.items()})

    @property
    def encoder_dim(self) -> int:
        return self.encoder_block_out_channels[0]

    @property
    def decoder_dim(self) -> int:
        return self.decoder_block_out_channels[0]

    @property
    def channels(self) -> int:
        """Latent channels as they are stored: after folding."""
        return self.latent_channels * self.patch_size**2

    @property
    def downscale(self) -> int:
        """Pixels per stored latent cell; every stage but one halves the picture."""
        return self.patch_size << (len(self.num_encoder_blocks) - 1)


_BLOCKS = list_of(checks.is_whole, "positive whole numbers, one per stage")
_WIDTHS: Check = (
    lambda value: _BLOCKS[0](value) and len(set(value)) == 1,
    "a list of equal positive whole numbers, one per stage",
)
CHECKS: dict[str, Check] = {
    "latent_channels": checks.WHOLE,
    "encoder_block_out_channels": _WIDTHS,
    "decoder_block_out_channels": _WIDTHS,
    "num_encoder_blocks": _BLOCKS,
    "num_decoder_blocks": _BLOCKS,
    "pool": checks.SWITCH,
    "patch_size": checks.WHOLE,
    "raw_scale": checks.POSITIVE,
    "raw_shift": checks.NUMBER,
    "latents_mean": list_of(checks.is_number, "numbers", least=0),
    "latents_std": list_of(checks.POSITIVE[0], "positive numbers", least=0),
    "output_range": checks.RANGE,
    "has_encoder": checks.SWITCH,
    "has_decoder": checks.SWITCH,
}
"""What each key of the config must be."""
