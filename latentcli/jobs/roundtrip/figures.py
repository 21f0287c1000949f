"""Sums up figures picture by picture, of one model or of the difference of two."""

from __future__ import annotations

import copy
import heapq
import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from latentcli.core.json_values import rounded_value
from latentcli.latents.stats import ChannelSums
from latentcli.metrics.psnr import summarise

NAMED = 3
"""Worst and best pictures that are named."""

Summary = dict[str, float | None]
Mark = tuple[dict[str, int], dict[str, int], ChannelSums]
"""Lengths of a model's figures and similarities, and its sums of latents."""


@dataclass(slots=True)
class ModelFigures:
    """What one model's pictures gave so far: a number of 8 bytes each, and sums."""

    figures: dict[str, array[float]]
    """By measure, in the order of the pictures; a measure that a picture is too small for lacks
    it."""
    latents: ChannelSums = field(default_factory=ChannelSums)
    alike: dict[str, array[float]] = field(default_factory=dict)
    """Similarity of its latents to the first model's, where they can be compared."""

    @classmethod
    def of(cls, measures: Iterable[str]) -> ModelFigures:
        """An empty one."""
        return cls({name: array("d") for name in measures})

    def add(
        self,
        figures: Mapping[str, Sequence[float]],
        latents: Tensor | None,
        alike: Mapping[str, Sequence[float]],
    ) -> None:
        """Takes in a batch: figures by measure, its finite latents [N, C, h, w], similarities."""
        for name, values in figures.items():
            self.figures[name].extend(values)
        for name, values in alike.items():
            self.alike.setdefault(name, array("d")).extend(values)
        if latents is not None:
            self.latents.add(latents)

    def mark(self) -> Mark:
        """Where it stands; copies no figures, as there may be many."""
        lengths = [{k: len(v) for k, v in each.items()} for each in (self.figures, self.alike)]
        return lengths[0], lengths[1], copy.deepcopy(self.latents)

    def back_to(self, mark: Mark) -> None:
        """Forgets what came after a mark."""
        *lengths, self.latents = mark
        for figures, before in zip((self.figures, self.alike), lengths, strict=True):
            for name, values in figures.items():
                del values[before.get(name, 0) :]


def rounded(values: Sequence[float] | array[float], digits: int = 4) -> Summary | None:
    """The summary of a figure, with infinities (identical pictures) as None; None of no values."""
    if not len(values):
        return None
    summary = summarise(values)
    return {k: rounded_value(v, digits) for k, v in summary.items()}


def differences(a: array[float], b: array[float]) -> list[float]:
    """a minus b, picture by picture; 0 where both are identical to the source."""
    return [0.0 if x == y else x - y for x, y in zip(a, b, strict=True)]


def extremes(values: array[float], *, higher_is_better: bool) -> dict[str, list[int]]:
    """Indices of the `worst` and the `best` pictures, the most extreme first."""
    order = range(len(values))
    # Of a few pictures, none is named as both.
    most = max(1, min(NAMED, len(values) // 2))
    low = heapq.nsmallest(most, order, key=values.__getitem__)
    high = heapq.nlargest(most, order, key=values.__getitem__)
    return {"worst": low, "best": high} if higher_is_better else {"worst": high, "best": low}


def latent_summary(sums: ChannelSums) -> dict[str, Any] | None:
    """Mean and standard deviation of all values, and of each channel; None without latents."""
    if not sums.count:
        return None
    means, stds = sums.mean, sums.std
    mean = sum(means) / len(means)
    square = sum(s * s + (m - mean) ** 2 for m, s in zip(means, stds, strict=True)) / len(means)
    return {
        "mean": round(mean, 6),
        "std": round(math.sqrt(square), 6),
        "channel_mean": [round(value, 6) for value in means],
        "channel_std": [round(value, 6) for value in stds],
    }
