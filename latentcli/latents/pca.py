"""Shows latents as colours by their first three principal components, one basis for a whole set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from latentcli.core.channel_moments import Array
from latentcli.latents.stats import ChannelSums

SPREAD = 2.5
"""Standard deviations of a component to either side of its mean that the colours span."""


class ChannelMoments(ChannelSums):
    """The same with the products of every two channels, C values observed at each position."""

    def _products(self, values: Array) -> Array:
        return values @ values.T

    def _squared(self, deviation: Array) -> Array:
        return self._products(deviation[:, None])

    @property
    def covariance(self) -> Array:
        """Population covariance [C, C]."""
        return self._m2 / max(self.count, 1)


@dataclass(frozen=True, slots=True)
class PcaBasis:
    """What turns a latent of a set into colours."""

    mean: Array
    """[C]."""
    axes: Array
    """[3, C], unit length, the one of most variance first; zeros where there are fewer channels."""
    deviations: Array
    """[3], the standard deviation along each axis."""
    explained: float
    """Part of the whole variance that the axes hold, 0 to 1."""


def fit(moments: ChannelMoments) -> PcaBasis:
    """The basis of the latents that were taken in; ValueError where there were none.

    An axis's sign is chosen so that its largest weight is positive: the same set gives the same
    colours.
    """
    if moments.count == 0:
        raise ValueError("there are no latents to fit a basis to")
    values, vectors = np.linalg.eigh(moments.covariance)
    values = np.clip(values, 0, None)
    kept = min(3, len(values))
    axes = np.zeros((3, len(values)))
    axes[:kept] = vectors[:, ::-1][:, :kept].T
    largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, None], axis=1)
    axes *= np.where(largest < 0, -1.0, 1.0)
    deviations = np.zeros(3)
    deviations[:kept] = np.sqrt(values[::-1][:kept])
    total = float(values.sum())
    explained = float(values[::-1][:kept].sum()) / total if total else 1.0
    return PcaBasis(np.asarray(moments.mean), axes, deviations, explained)


def colours(latents: Tensor, basis: PcaBasis) -> Tensor:
    """uint8 [N, 3, h, w] on the CPU for latents [N, C, h, w].

    Red, green and blue are the three components; mid grey is the mean of the set, and each spans
    SPREAD of its own standard deviations to either side.
    """
    values = latents.detach().double().cpu()
    mean, axes = torch.from_numpy(basis.mean), torch.from_numpy(basis.axes)
    scores = torch.einsum("kc,nchw->nkhw", axes, values - mean[:, None, None])
    scale = torch.from_numpy(np.where(basis.deviations > 0, basis.deviations, np.inf))
    shown = 127.5 + 127.5 * scores / (SPREAD * scale[:, None, None])
    return shown.round().clamp(0, 255).byte()
