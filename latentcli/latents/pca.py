"""Shows latents as colours by their first three principal components, one basis for a whole set."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array = npt.NDArray[np.float64]

SPREAD = 2.5
"""Standard deviations of a component to either side of its mean that the colours span."""


class ChannelMoments:
    """Running count, mean and matrix of centred products of the channels, in float64.

    Each position of a latent is one observation of C values. Merging: Chan, Golub and LeVeque 1983.
    """

    def __init__(self) -> None:
        self.count = 0
        """Positions so far."""
        self.mean: Array = np.zeros(0)
        self._products: Array = np.zeros((0, 0))

    def add(self, latents: Tensor) -> None:
        """Takes in latents [N, C, h, w] of any dtype and device; all must be finite.

        ValueError where the number of channels changes.
        """
        for sample in latents.detach().float().flatten(2).cpu().numpy():
            values = sample.astype(np.float64)
            mean = values.mean(axis=1)
            values -= mean[:, None]
            self._merge(values.shape[1], mean, values @ values.T)

    def _merge(self, count: int, mean: Array, products: Array) -> None:
        if self.count == 0:
            self.count, self.mean, self._products = count, mean, products
            return
        if len(mean) != len(self.mean):
            raise ValueError(f"latents have {len(mean)} channels, those before {len(self.mean)}")
        total = self.count + count
        delta = mean - self.mean
        self.mean = self.mean + delta * (count / total)
        self._products = self._products + products
        self._products += np.outer(delta, delta) * (self.count * count / total)
        self.count = total

    def copy(self) -> ChannelMoments:
        """The same sums, which do not change with these."""
        return copy.deepcopy(self)

    @property
    def covariance(self) -> Array:
        """Population covariance [C, C]."""
        return self._products / max(self.count, 1)


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
    return PcaBasis(moments.mean, axes, deviations, explained)


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
