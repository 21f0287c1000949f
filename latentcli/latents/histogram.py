"""Counts the values of latents in equal bins, channel by channel and in one pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

TAIL = 0.005
"""Part of the values at each end that does not decide where the bins lie."""
ROOM = 1.6
"""How much farther than that the bins go: of normal values, to four standard deviations."""


@dataclass(frozen=True, slots=True)
class Range:
    """Where bins lie, from `low` to below `high`."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"a range goes upwards, not from {self.low} to {self.high}")


def range_of(values: npt.ArrayLike) -> Range:
    """A range for values like these, of any shape, with round ends; only finite ones count.

    It reaches equally far to both sides of the median, so that the shape can be judged.
    """
    found = np.asarray(values, dtype=np.float64).ravel()
    found = found[np.isfinite(found)]
    if not found.size:
        return Range(-1.0, 1.0)
    low, middle, high = np.quantile(found, [TAIL, 0.5, 1 - TAIL])
    reach = ROOM * max(middle - low, high - middle)
    reach = max(reach, 1e-6 * max(abs(middle), 1.0))
    step = 10.0 ** np.floor(np.log10(reach)) / 2
    return Range(
        float(np.floor((middle - reach) / step) * step),
        float(np.ceil((middle + reach) / step) * step),
    )


class ValueHistogram:
    """Running counts of each channel's values; memory is 8 bytes a bin and channel."""

    def __init__(self, channels: int, span: Range, bins: int = 64) -> None:
        if channels < 1 or bins < 1:
            raise ValueError(f"{channels} channels and {bins} bins leave nothing to count")
        self.span = span
        self.counts: Counts = np.zeros((channels, bins), dtype=np.int64)
        """[C, bins]."""
        self.below: Counts = np.zeros(channels, dtype=np.int64)
        """[C], finite values under the range; -inf is none of them."""
        self.above: Counts = np.zeros(channels, dtype=np.int64)
        """[C], finite values at the range's end and over it."""
        self.nan: Counts = np.zeros(channels, dtype=np.int64)
        """[C]."""
        self.infinite: Counts = np.zeros(channels, dtype=np.int64)
        """[C]."""
        self.least: Floats = np.full(channels, np.inf)
        """[C], the smallest finite value; infinity where there was none."""
        self.most: Floats = np.full(channels, -np.inf)
        """[C], the largest finite value; -infinity where there was none."""

    def add(self, latents: Tensor) -> None:
        """Takes in latents [N, C, h, w] of any dtype and device; ValueError for other channels."""
        for sample in latents.detach().float().flatten(2).cpu().numpy():
            if len(sample) != len(self.counts):
                raise ValueError(f"latents have {len(sample)} channels, not {len(self.counts)}")
            self._add(sample.astype(np.float64))

    def _add(self, values: Floats) -> None:
        channels, bins = self.counts.shape
        finite = np.isfinite(values)
        self.nan += np.isnan(values).sum(axis=1)
        self.infinite += np.isinf(values).sum(axis=1)
        self.least = np.minimum(self.least, values.min(axis=1, where=finite, initial=np.inf))
        self.most = np.maximum(self.most, values.max(axis=1, where=finite, initial=-np.inf))
        low, high = self.span.low, self.span.high
        under, over = finite & (values < low), finite & (values >= high)
        self.below += under.sum(axis=1)
        self.above += over.sum(axis=1)
        inside = finite & ~under & ~over
        place = np.minimum((values[inside] - low) * (bins / (high - low)), bins - 1).astype(
            np.int64
        )
        place += np.broadcast_to(np.arange(channels)[:, None] * bins, values.shape)[inside]
        self.counts += np.bincount(place, minlength=channels * bins).reshape(channels, bins)

    def to_json(self, channel: int | None = None) -> dict[str, Any]:
        """Range, counts and what lies outside, of one channel or of all together."""
        chosen = slice(None) if channel is None else slice(channel, channel + 1)
        return {
            "low": self.span.low,
            "high": self.span.high,
            "counts": self.counts[chosen].sum(axis=0).tolist(),
            "below": int(self.below[chosen].sum()),
            "above": int(self.above[chosen].sum()),
        }
