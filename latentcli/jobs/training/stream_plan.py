"""Plans an epoch of a stream: which part a worker reads, and in which batches it gives it.

All of it follows from the samples' units and sizes, seed and epoch, so each process knows what the
others do, and each rank ends up with equally many batches.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from latentcli.jobs.training.batch_plan import (
    Batches,
    Ints,
    by_size,
    count_of,
    divided,
    full_ones,
    shares,
)

Sizes = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Order:
    """How the samples of a store are streamed."""

    units: npt.NDArray[np.int32]
    """Unit of each sample; those of a unit follow each other."""
    sizes: Sizes
    """Number of each sample's latent size."""
    shuffle: bool
    buffer: int
    """Samples that are held at most so that their order can be changed."""
    seed: int
    batch_size: int | None
    """None where single samples are streamed."""
    drop_last: bool


class EpochPlan:
    """What each worker of each rank does in one epoch."""

    def __init__(self, order: Order, epoch: int) -> None:
        self._order, self._epoch = order, epoch
        self._sequence = np.arange(len(order.units))
        """All places in the order in which shards are read."""
        if order.shuffle:
            rng = np.random.default_rng([order.seed, epoch])
            numbers, unit = np.unique(order.units, return_inverse=True)
            self._sequence = np.argsort(rng.permutation(len(numbers))[unit], kind="stable")

    def part(self, worker: Worker) -> Ints:
        """What one worker of one rank reads, in the order in which it reads it."""
        begin, end = worker.span(len(self._sequence))
        return self._sequence[begin:end]

    def batches(self, worker: Worker) -> Batches:
        """What one worker gives, in batches of one size, or one by one."""
        order, places = self._order, self._shuffled(worker)
        if order.batch_size is None:
            starts = np.arange(len(places))
            return Batches(places, np.stack([starts, starts + 1], axis=1))
        batches = by_size(places, order.sizes[places], order.batch_size)
        if order.drop_last:
            batches = full_ones(batches, order.batch_size)
        change = self._changes(worker)[worker.number]
        return (
            batches.part(slice(len(batches) + change)) if change < 0 else divided(batches, change)
        )

    def total(self, worker: Worker) -> int:
        """Batches of a worker's rank in this epoch, by all of its workers."""
        return sum(self._counts(worker, worker.rank)) + sum(self._changes(worker))

    def is_even(self, worker: Worker) -> bool:
        """Whether all ranks have equally many batches; they cannot where some have few samples."""
        first = (replace(worker, rank=rank) for rank in range(worker.ranks))
        return len({self.total(other) for other in first}) == 1

    def _shuffled(self, worker: Worker) -> Ints:
        """A part in another order, in which no sample moves further than the buffer holds."""
        order, part = self._order, self.part(worker)
        if not order.shuffle or order.buffer < 2:
            return part
        rng = np.random.default_rng([order.seed, self._epoch, 1 + worker.place])
        return part[np.argsort(np.arange(len(part)) + rng.uniform(0, order.buffer, len(part)))]

    def _counts(self, worker: Worker, rank: int) -> list[int]:
        """Batches that each worker of a rank has, before ranks are made even."""
        order = self._order
        if order.batch_size is None:
            return [len(self.part(other)) for other in worker.team(rank)]
        sizes = (order.sizes[self.part(other)] for other in worker.team(rank))
        return [count_of(own, order.batch_size, full=order.drop_last) for own in sizes]

    def _changes(self, worker: Worker) -> list[int]:
        """How many batches more or less each worker of this rank must have."""
        own = self._counts(worker, worker.rank)
        if self._order.batch_size is None:
            return [0] * len(own)
        totals = [sum(self._counts(worker, rank)) for rank in range(worker.ranks)]
        if self._order.drop_last:
            return [-share for share in shares(sum(own) - min(totals), own)]
        parts = (self.part(other) for other in worker.team(worker.rank))
        rooms = [len(part) - count for part, count in zip(parts, own, strict=True)]
        return shares(max(totals) - sum(own), rooms)


@dataclass(frozen=True, slots=True)
class Worker:
    """One of the processes that stream a store together."""

    ranks: int
    rank: int
    workers: int
    """Of each rank."""
    number: int
    """Among those of its rank."""

    @property
    def place(self) -> int:
        """Its number among all."""
        return self.rank * self.workers + self.number

    def span(self, samples: int) -> tuple[int, int]:
        """Which of so many samples are its own, from one to before another.

        Those of a rank do not depend on how many workers it has.
        """
        first, last = (samples * rank // self.ranks for rank in (self.rank, self.rank + 1))
        own = last - first
        return (
            first + own * self.number // self.workers,
            first + own * (self.number + 1) // self.workers,
        )

    def team(self, rank: int) -> tuple[Worker, ...]:
        """All workers of a rank."""
        return tuple(Worker(self.ranks, rank, self.workers, n) for n in range(self.workers))
