"""Measures channels, values and samples of latents that come one at a time."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentcli.core.json_values import finite
from latentcli.latents.histogram import Range, ValueHistogram, range_of
from latentcli.latents.pca import ChannelMoments
from latentcli.latents.stats import ChannelSums

EXTREMES = 5
"""Samples named at each end."""


@dataclass(slots=True)
class Extremes:
    """The samples of smallest and of largest RMS."""

    low: list[tuple[float, int, str]] = field(default_factory=list)
    high: list[tuple[float, int, str]] = field(default_factory=list)

    def add(self, rms: float, index: int, key: str) -> None:
        """Takes a sample in."""
        _push(self.high, (rms, -index, key))
        _push(self.low, (-rms, -index, key))

    def to_json(self) -> dict[str, list[dict[str, Any]]]:
        """Both ends, the most extreme first."""
        return {
            "lowest": [{"key": k, "rms": -rms} for rms, _, k in sorted(self.low, reverse=True)],
            "highest": [{"key": k, "rms": rms} for rms, _, k in sorted(self.high, reverse=True)],
        }


def _push(heap: list[tuple[float, int, str]], item: tuple[float, int, str]) -> None:
    (heapq.heappush if len(heap) < EXTREMES else heapq.heappushpop)(heap, item)


class StoreStatistics:
    """Running figures; memory does not grow with the number of samples.

    A sample with a value that is not finite counts in the histograms and in `spoiled`, and in
    nothing else.
    """

    def __init__(self, preview: list[Tensor]) -> None:
        """`preview` are latents [n, C, h, w] of a few samples, which say where the bins lie."""
        self.channels = preview[0].shape[1]
        usual = [latents for latents in preview if latents.shape[1] == self.channels]
        values = np.concatenate([latents.double().numpy().ravel() for latents in usual])
        sizes = [_rms(latents) for latents in usual]
        self.values = ValueHistogram(self.channels, range_of(values))
        finite = [size for size in sizes if math.isfinite(size)]
        self.rms = ValueHistogram(1, Range(0.0, _round_up(1.5 * max(finite, default=1.0))), 50)
        self.sums = ChannelSums()
        self.moments = ChannelMoments()
        self.extremes = Extremes()
        self.samples = 0
        self.frames = 0
        self.spoiled = 0
        """Samples with a value that is not finite."""
        self.fitted = 0
        """Samples that the principal components come from."""

    def add(self, index: int, key: str, latents: Tensor, fit: bool) -> None:
        """Takes a sample's latents [n, C, h, w] in, for the principal components too if `fit`.

        ValueError where it has another number of channels.
        """
        self.values.add(latents)
        self.samples += 1
        self.frames += len(latents)
        if not bool(latents.isfinite().all()):
            self.spoiled += 1
            return
        self.sums.add(latents)
        size = _rms(latents)
        self.rms.add(torch.full((1, 1, 1, 1), size, dtype=torch.float64))
        self.extremes.add(size, index, key)
        if fit:
            self.moments.add(latents)
            self.fitted += 1

    def whole(self) -> dict[str, float | int | None]:
        """Of all values together: mean, std, and over all finite ones min and max."""
        mean, std = np.asarray(self.sums.mean), np.asarray(self.sums.std)
        there = self.sums.count > 0
        centre = float(mean.mean()) if there else None
        return {
            "mean": centre,
            "std": float(np.sqrt((std**2 + (mean - centre) ** 2).mean())) if there else None,
            "min": finite(float(self.values.least.min())),
            "max": finite(float(self.values.most.max())),
            "nan": int(self.values.nan.sum()),
            "infinite": int(self.values.infinite.sum()),
        }


def _rms(latents: Tensor) -> float:
    return float(latents.double().square().mean().sqrt())


def _round_up(value: float) -> float:
    """A round number at least as large, above zero."""
    value = max(value, 1e-6)
    step = 10.0 ** math.floor(math.log10(value)) / 2
    return math.ceil(value / step) * step
