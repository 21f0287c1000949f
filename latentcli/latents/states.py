"""Converts latents between the states of their space: raw, and whitened or scaled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from latentcli.core.types import NORMAL_STATES


@dataclass(frozen=True, slots=True)
class Normalisation:
    """What makes the latents of a space normal: (raw - mean) / std, per channel."""

    state: str
    """What normal latents are called in this space: whitened or scaled."""
    mean: tuple[float, ...]
    """Per channel, of raw latents."""
    std: tuple[float, ...]
    """Per channel, of raw latents."""

    def __post_init__(self) -> None:
        if self.state not in NORMAL_STATES:
            raise ValueError(
                f"normal latents are {self.state!r}, allowed are {' and '.join(NORMAL_STATES)}"
            )
        if not self.mean or len(self.mean) != len(self.std):
            raise ValueError(f"there are {len(self.mean)} means and {len(self.std)} deviations")

    @property
    def states(self) -> tuple[str, str]:
        """The two states that latents of this space can have."""
        return self.state, "raw"


def in_state(latents: Tensor, have: str, want: str, normal: Normalisation) -> Tensor:
    """Latents [..., C, h, w] in another state, float32; computed in float32 from any dtype.

    `have` and `want` are two of the space's states, the mode or a sample of moments being raw.
    ValueError for another state, or another number of channels.
    """
    for state in (have, want):
        if state not in normal.states:
            raise ValueError(
                f"latents of this space are {' or '.join(normal.states)}, not {state!r}"
            )
    if latents.shape[-3] != len(normal.mean):
        raise ValueError(
            f"latents have {latents.shape[-3]} channels, those of this space {len(normal.mean)}"
        )
    if have == want:
        return latents.float()
    mean, std = (_column(values, latents.device) for values in (normal.mean, normal.std))
    # In place, in a copy: a training loop does this for each sample.
    found = latents.to(torch.float32, copy=True)
    return found.mul_(std).add_(mean) if want == "raw" else found.sub_(mean).div_(std)


def column(values: Sequence[float], latents: Tensor) -> Tensor:
    """A value a channel, float32 [C, 1, 1] on the latents' device."""
    return _column(tuple(values), latents.device).clone()


@lru_cache(maxsize=16)
def _column(values: tuple[float, ...], device: torch.device) -> Tensor:
    """The column, made once: a training loop asks for it with each sample."""
    return torch.tensor(values, dtype=torch.float32, device=device)[:, None, None]
