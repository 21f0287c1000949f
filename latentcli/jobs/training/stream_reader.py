"""Reads the samples of a stream, in place or from shards that are fetched in their order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from latentcli.jobs.training.batch_plan import Ints
from latentcli.jobs.training.dataset import LatentDataset
from latentcli.jobs.training.draws import EpochIndex
from latentcli.jobs.training.fetched_shards import FetchedShards


class Reader(Protocol):
    """Items of a dataset by place."""

    def items(self, places: Sequence[int]) -> list[Any]:
        """The items of places, each of which is asked for once; without those that are damaged."""


class DirectReader(Reader):
    """Reads an item when it is wanted: of mapped files the system holds what lies near it."""

    def __init__(self, dataset: LatentDataset, epoch: int, seed: int) -> None:
        self._dataset, self._epoch, self._seed = dataset, epoch, seed

    def items(self, places: Sequence[int]) -> list[Any]:
        return self._dataset.present([EpochIndex(n, self._epoch, self._seed) for n in places])


class SequentialReader(Reader):
    """Reads shards front to back, and holds items that are not wanted yet."""

    def __init__(
        self, dataset: LatentDataset, sequence: Ints, source: FetchedShards, epoch: int, seed: int
    ) -> None:
        """`sequence` has all places that will be asked for, those of a unit in a row."""
        self._dataset, self._source = dataset, source
        self._epoch, self._seed = epoch, seed
        self._places: list[int] = sequence.tolist()
        units = dataset.index.units[sequence]
        starts = [0, *(np.flatnonzero(np.diff(units)) + 1).tolist()] if len(units) else []
        self._units: list[int] = units[starts].tolist()
        """Units in the order in which they are read."""
        self._run = np.searchsorted(starts, np.arange(len(units)), side="right") - 1
        """Which of those each place of the sequence belongs to."""
        self._read = 0
        self._held: dict[int, list[Any]] = {}

    def items(self, places: Sequence[int]) -> list[Any]:
        found: list[Any] = []
        for place in places:
            while place not in self._held:
                self._read_next()
            found += self._held.pop(place)
        return found

    def _read_next(self) -> None:
        place, run = self._places[self._read], int(self._run[self._read])
        self._read += 1
        index = EpochIndex(place, self._epoch, self._seed)
        following = self._units[run + 1] if run + 1 < len(self._units) else None
        self._held[place] = self._dataset.read(
            index, lambda unit: self._source.unit(unit, following)
        )
