"""Holds what the decoders of scaled f8 latents without an encoder have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import takewhile
from typing import Any, Self

from torch import Tensor

from latentcli.core.errors import WeightsError
from latentcli.core.types import LatentSpec
from latentcli.models.base import Autoencoder
from latentcli.models.config_checks import (
    POSITIVE,
    RANGE,
    WHOLE,
    Check,
    check,
    frozen,
    list_of,
    refuse_unknown,
)

DOWNSCALE = 8


def without_prefix(state: dict[str, Tensor], model: Autoencoder) -> dict[str, Tensor]:
    """The state without a prefix that all its names share, such as `decoder.`.

    Unchanged where a name is the model's own already, or none becomes so.
    """
    expected = model.state_dict().keys()
    columns = zip(*(name.split(".") for name in state), strict=False)
    shared = takewhile(lambda column: len(set(column)) == 1, columns)
    prefix = "".join(f"{column[0]}." for column in shared)
    bare = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    misnamed = expected.isdisjoint(state) and not expected.isdisjoint(bare)
    return bare if misnamed else state


# Type of a key's default -> what its value must be.
_KINDS: dict[type, Check] = {
    int: WHOLE,
    float: POSITIVE,
    tuple: list_of(lambda value: type(value) is int and value >= 0, "whole numbers", least=0),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderConfig:
    """The config keys that every such decoder has; a family adds its own, with defaults."""

    latent_channels: int = 4
    scaling_factor: float = 0.18215
    """Raw latents times this are what the network takes."""
    output_range: tuple[float, float] = (-1, 1)
    """What the published decode method gives: (-1, 1), or (0, 1), which is mapped to it."""

    def __post_init__(self) -> None:
        for item in fields(self):
            if item.name != "output_range":
                check(item.name, getattr(self, item.name), _KINDS[type(item.default)])
        accepts, wanted = RANGE
        if not accepts(self.output_range):
            raise WeightsError(
                f"The config says output_range = {self.output_range}; it must be {wanted}."
            )

    @classmethod
    def from_mapping(cls, config: Mapping[str, Any]) -> Self:
        """From a config's keys; missing ones take the defaults, unknown ones are WeightsErrors.

        Keys with a leading underscore are notes of the tool that wrote the file.
        """
        given: dict[str, Any] = {
            key: frozen(value) for key, value in config.items() if not key.startswith("_")
        }
        refuse_unknown(given, {item.name for item in fields(cls)}, "this decoder")
        return cls(**given)


class ScaledDecoder(Autoencoder):
    """A decoder alone for scaled latents [N, C, H/8, W/8]; a family adds `network`."""

    can_encode = False
    moments = ("mean",)
    config: DecoderConfig

    def __init__(self, config: DecoderConfig, spec: LatentSpec | None, name: str) -> None:
        super().__init__()
        self.config = config
        self.spec = spec or LatentSpec(
            config.latent_channels, DOWNSCALE, DOWNSCALE, space=name, state="scaled"
        )

    @abstractmethod
    def network(self, latents: Tensor, frames: int) -> Tensor:
        """What the published decode method gives, [N, 3, H, W] in the network's dtype or float32.

        `latents` are scaled, float32, and `frames` of them in a row are one clip.
        """

    def _decode(
        self, latents: Tensor, frames: int, inference_config: Any, noise: Tensor | None
    ) -> Tensor:
        images = self.network(latents.float(), frames).float()
        return images if self.config.output_range == (-1, 1) else images * 2 - 1

    def whiten(self, latents: Tensor) -> Tensor:
        """Raw latents [N, C, h, w] times the scaling factor, float32."""
        return latents.float() * self.config.scaling_factor

    def dewhiten(self, latents: Tensor) -> Tensor:
        """Inverse of `whiten`, float32."""
        return latents.float() / self.config.scaling_factor
