"""Sums the per-channel mean and standard deviation of latents, in one pass and in float64."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from torch import Tensor

from latentcli.core.channel_moments import Array, centred_samples, squares


class ChannelSums:
    """Running count, mean and sum of squared deviations (M2) of each channel, in float64.

    Samples are taken in one at a time, in their order, so the result depends neither on how they
    were batched nor on the number of threads. Merging: Chan, Golub and LeVeque 1983, eq. 2.1.
    """

    def __init__(self) -> None:
        self.count = 0
        """Values per channel so far."""
        self._mean: Array = np.zeros(0)
        self._m2: Array = np.zeros(0)

    def add(self, latents: Tensor) -> None:
        """Takes in latents [N, C, h, w] of any dtype and device; all must be finite.

        ValueError where the number of channels changes.
        """
        for mean, centred in centred_samples(latents):
            self._merge(centred.shape[1], mean, self._products(centred))

    def add_moments(self, count: int, means: Array, sums: Array) -> None:
        """Takes in what `channel_moments` gave of latents with `count` values in a channel, [N, C].

        ValueError as `add`.
        """
        for mean, m2 in zip(means, sums, strict=True):
            self._merge(count, mean, m2)

    def _products(self, values: Array) -> Array:
        """What is summed of values [C, n] that are centred."""
        return squares(values)

    def _squared(self, deviation: Array) -> Array:
        """`_products` of one deviation [C]."""
        return deviation * deviation

    def merge(self, other: ChannelSums) -> None:
        """Takes in the sums of later samples."""
        self._merge(other.count, other._mean, other._m2)

    def _merge(self, count: int, mean: Array, m2: Array) -> None:
        if count == 0:
            return
        if self.count == 0:
            self.count, self._mean, self._m2 = count, mean.copy(), m2.copy()
            return
        if len(mean) != len(self._mean):
            raise ValueError(f"latents have {len(mean)} channels, those before {len(self._mean)}")
        total = self.count + count
        delta = mean - self._mean
        self._mean = self._mean + delta * (count / total)
        self._m2 = self._m2 + m2
        self._m2 += self._squared(delta) * (self.count * count / total)
        self.count = total

    @property
    def mean(self) -> list[float]:
        """Mean of each channel."""
        return [float(value) for value in self._mean]

    @property
    def std(self) -> list[float]:
        """Population standard deviation of each channel."""
        return [float(value) for value in np.sqrt(self._m2 / max(self.count, 1))]

    def summary(self) -> dict[str, list[float]] | None:
        """Mean and std, or None where nothing was taken in."""
        return {"mean": self.mean, "std": self.std} if self.count else None

    def to_json(self) -> dict[str, Any]:
        """Plain values that `from_json` restores bit for bit."""
        return {"count": self.count, "mean": self.mean, "m2": [float(v) for v in self._m2]}

    @classmethod
    def from_json(cls, sums: Mapping[str, Any]) -> Self:
        """The sums; ValueError where they are no such thing."""
        restored = cls()
        try:
            restored.count = int(sums["count"])
            restored._mean = np.asarray(sums["mean"], dtype=np.float64)
            restored._m2 = np.asarray(sums["m2"], dtype=np.float64)
        except (KeyError, TypeError) as error:
            raise ValueError("channel sums need count, mean and m2") from error
        if restored._mean.shape != restored._m2.shape or restored._mean.ndim != 1:
            raise ValueError("channel sums have means and m2 of different lengths")
        return restored

    def merge_json(self, sums: Mapping[str, Any]) -> None:
        """`merge` of sums that are still JSON."""
        self.merge(self.from_json(sums))
