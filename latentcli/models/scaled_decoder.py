"""Holds what the decoders of scaled f8 latents without an encoder have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from itertools import takewhile
from typing import Any, Self

from torch import Tensor

from latentcli.core.errors import WeightsError
from latentcli.core.types import LatentSpec
from latentcli.models.base import Autoencoder

DOWNSCALE = 8
OUTPUT_RANGES = ((-1, 1), (0, 1))


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


def _whole(value: Any) -> bool:
    return type(value) is int and value > 0


def _wholes(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(type(v) is int and v >= 0 for v in value)


def _positive(value: Any) -> bool:
    return type(value) in (int, float) and value > 0


# Type of a key's default -> whether a value will do, and what is wanted.
_KINDS: dict[type, tuple[Callable[[Any], bool], str]] = {
    int: (_whole, "a positive whole number"),
    float: (_positive, "a positive number"),
    tuple: (_wholes, "a list of whole numbers"),
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
            self._check(item.name, item.default)
        if self.output_range not in OUTPUT_RANGES:
            raise WeightsError(
                f"The config says output_range = {self.output_range}; it must be [-1, 1] or [0, 1]."
            )

    def _check(self, name: str, default: object) -> None:
        value = getattr(self, name)
        fits, wanted = _KINDS[type(default)]
        if name != "output_range" and not fits(value):
            raise WeightsError(f"The config says {name} = {value!r}; it must be {wanted}.")

    @classmethod
    def from_mapping(cls, config: Mapping[str, Any]) -> Self:
        """From a config's keys; missing ones take the defaults, unknown ones are WeightsErrors.

        Keys with a leading underscore are notes of the tool that wrote the file.
        """
        known = {item.name for item in fields(cls)}
        given: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in config.items()
            if not key.startswith("_")
        }
        unknown = sorted(set(given) - known)
        if unknown:
            raise WeightsError(
                f"The config has keys that this decoder does not know: {', '.join(unknown)}."
                f" It knows {', '.join(sorted(known))}."
            )
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
