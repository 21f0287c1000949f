"""Sums latents channel by channel, group by group, to the mean and deviation of all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from latentcli.exports.serialise import Array

CHUNK = 64
"""Samples that are summed at once: they are held in float64."""


class Statistics(NamedTuple):
    """What all latents have in common; a value a channel."""

    values: int
    """How many each channel has."""
    mean: npt.NDArray[np.float64]
    variance: npt.NDArray[np.float64]
    """Of the values as they are, not of a larger population."""

    def rounded(self) -> tuple[list[float], list[float]]:
        """Mean and deviation with the digits that a person sets in a trainer."""
        mean, std = (np.round(row, 5).tolist() for row in (self.mean, np.sqrt(self.variance)))
        return mean, std


def sums_of(latents: Array, deviations: Array | None = None) -> dict[str, Any]:
    """JSON values of latents [N, C, h, w]; `merged` has the statistics of several of them.

    With `deviations`, of the same shape, the latents are means of Gaussians, whose samples are
    what the statistics are of.
    """
    sums = np.zeros(latents.shape[1])
    squares = np.zeros(latents.shape[1])
    for start in range(0, len(latents), CHUNK):
        values = latents[start : start + CHUNK].astype(np.float64)
        sums += values.sum(axis=(0, 2, 3))
        squares += np.einsum("nchw,nchw->c", values, values)
        if deviations is not None:
            spread = deviations[start : start + CHUNK].astype(np.float64)
            squares += np.einsum("nchw,nchw->c", spread, spread)
    count = latents.size // latents.shape[1]
    return {"count": count, "sums": sums.tolist(), "squares": squares.tolist()}


def merged(groups: Iterable[Mapping[str, Any]]) -> Statistics | None:
    """The statistics of all groups; None where there are none."""
    rows: Sequence[Mapping[str, Any]] = list(groups)
    count = sum(row["count"] for row in rows)
    if not count:
        return None
    mean = np.sum([row["sums"] for row in rows], axis=0) / count
    squares = np.sum([row["squares"] for row in rows], axis=0) / count
    return Statistics(count, mean, np.maximum(squares - mean**2, 0))
