"""Streams a latent store shard by shard for a training loop, from local or remote storage."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from torch.utils.data import IterableDataset, get_worker_info

from latentcli.core.errors import UsageError
from latentcli.jobs.training.accelerate_shares import asked_by_accelerate
from latentcli.jobs.training.batch_plan import Batches, Ints
from latentcli.jobs.training.collate import collate
from latentcli.jobs.training.dataset import LatentDataset
from latentcli.jobs.training.fetched_shards import FetchedShards
from latentcli.jobs.training.ranks import UnequalRanks, ranks
from latentcli.jobs.training.shared_numbers import SharedNumbers
from latentcli.jobs.training.stream_plan import EpochPlan, Order, Worker
from latentcli.jobs.training.stream_reader import DirectReader, Reader, SequentialReader
from latentcli.shards.storage.hub import is_pinned
from latentcli.shards.storage.paths import AnyPath, RemotePath

_SPLITS = ("DataLoaderDispatcher", "IterableDatasetShard")
"""Accelerate's classes that share a stream out among ranks."""
_MOST_WORKERS = 512
"""Of one loader; with more, the epoch must be set by the loop."""


def _given(
    stream: LatentStream, worker: Worker, epoch: int, start: int
) -> Iterator[tuple[int, Any]]:
    """What a worker gives of an epoch after `start` times, each with its number, from 1 on."""
    part, batches = stream.plan(epoch, worker)
    rest = batches.part(slice(start, None))
    with stream.reader(part, rest, epoch) as reader:
        for number, places in enumerate(rest, start + 1):
            if (found := stream.made(reader.items(places), places)) is not None:
                yield number, found


class LatentStream(IterableDataset[Any]):
    """Items of a store, or batches of them, in an order that reads each shard once, front to back.

    Made for stores that are remote, or have more shards than a process may hold open: a remote
    shard is fetched as a whole to a temporary file while the one before it is used. In each epoch
    the shards come in another order, and within it samples move by up to `shuffle_buffer` places;
    of a remote store each worker holds as many in memory. `shuffle=False` keeps the store's order.

    With `batch_size` it gives batches of one latent size, made by `latentcli.collate`, for
    DataLoader(stream, batch_size=None); without it single items, as those of LatentDataset,
    whose options `options` are.

    In each epoch every sample comes once, over all ranks and their workers, which must be equally
    many on each rank. Each takes an unbroken part of the order, so a shard on a border is read
    twice. With `batch_size` all ranks have equally many batches: some are smaller for that, or are
    left out with `drop_last`, which also leaves out what fills no batch. Without it, the samples of
    ranks differ by at most one. `num_replicas` and `rank` are found as in `ranks`.

    The epoch is 0 at first and goes on by itself when all of one was read, or is set with
    `set_epoch`. `state_dict` and `load_state_dict` take and restore the position of a stream that
    is read in this process. Of worker processes a torchdata StatefulDataLoader does it, exactly;
    a plain DataLoader cannot.

    UsageError where accelerate is to share it out: give its loader to no `prepare`.
    """

    def __init__(
        self,
        path: str | AnyPath,
        *,
        shuffle: bool = True,
        shuffle_buffer: int = 1000,
        seed: int = 0,
        batch_size: int | None = None,
        drop_last: bool = False,
        num_replicas: int | None = None,
        rank: int | None = None,
        **options: Any,
    ) -> None:
        if batch_size is not None and batch_size < 1:
            raise UsageError(f"batch_size is {batch_size}; a batch has at least one sample.")
        if drop_last and batch_size is None:
            raise UsageError("drop_last is of batches: give batch_size.")
        self.dataset = LatentDataset(path, **options)
        index = self.dataset.index
        self._order = Order(
            *(index.units, index.shape_ids, shuffle, shuffle_buffer, seed, batch_size, drop_last)
        )
        self._check = str(options.get("check", "none"))
        self._given_ranks = num_replicas, rank
        self._clock = SharedNumbers(1 + _MOST_WORKERS)
        """The epoch, and then for each worker the epoch that it will read next."""
        self._start = self._at = (0, 0)
        self._workers = 1
        """Of the loader that `_start` is a position of."""
        ranks(num_replicas, rank)  # what is wrong with them is told here

    @property
    def ranks(self) -> tuple[int, int]:
        """(number of ranks, this one's)."""
        return ranks(*self._given_ranks)

    @property
    def epoch(self) -> int:
        """The epoch that is read, or is to be read next."""
        return self._clock[0]

    @property
    def damaged(self) -> tuple[int, ...]:
        """Units that `skip_damaged` left out so far, in any worker of this rank, ascending."""
        return self.dataset.damaged

    def set_epoch(self, epoch: int) -> None:
        """Begins another epoch; workers that run already learn of it at their next start."""
        if epoch != self._clock[0]:
            self._clock.clear()
            self._clock[0] = epoch
            self._start = self._at = (epoch, 0)

    def batches(self, workers: int = 1) -> int:
        """Batches of this rank in this epoch; samples where there is no `batch_size`.

        `workers` is the loader's num_workers; without any, 1.
        """
        plan = EpochPlan(self._order, self.epoch)
        return plan.total(Worker(*self.ranks, max(workers, 1), 0))

    def __iter__(self) -> StreamIterator:
        self._refuse_accelerate()
        info = get_worker_info()
        number, workers = (info.id, info.num_workers) if info else (0, 1)
        epoch = self._clock[0]
        start = self._start if self._start[0] == epoch else (epoch, 0)
        if start[1] and workers != self._workers:
            raise UsageError(
                f"A position of a stream with num_workers={self._workers} cannot be resumed with"
                f" {workers}: keep num_workers, and let torchdata's StatefulDataLoader, which"
                " knows its workers' positions, save and load them."
            )
        return StreamIterator(self, Worker(*self.ranks, workers, number), start)

    def state_dict(self) -> dict[str, Any]:
        """The position of the latest iterator in this process."""
        return self.state_of(*self._at)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a state; UsageError where it is of other samples, options or ranks."""
        self._start = self._at = self.place_of(state)
        self._workers = int(state["workers"])
        self._clock[0] = self._start[0]

    def state_of(self, epoch: int, given: int) -> dict[str, Any]:
        """A position as plain values, with what the order depends on."""
        info, order = get_worker_info(), self._order
        count, rank = self.ranks
        return {
            "epoch": epoch,
            "given": given,
            "samples": len(order.units),
            "batch_size": order.batch_size,
            "shuffle": order.shuffle,
            "shuffle_buffer": order.buffer,
            "seed": order.seed,
            "drop_last": order.drop_last,
            "num_replicas": count,
            "rank": rank,
            "workers": info.num_workers if info else 1,
        }

    def place_of(self, state: Mapping[str, Any]) -> tuple[int, int]:
        """(epoch, what was given in it) of a state; UsageError where it is of another order."""
        own = self.state_of(0, 0)
        odd = [
            f"{name} is {state.get(name)!r} in the state and {value!r} here"
            for name, value in own.items()
            if name not in ("epoch", "given") and state.get(name) != value
        ]
        if odd:
            raise UsageError(
                f"The state of the stream is of another order: {'; '.join(odd)}. Resume with the"
                " same store and options, or start a new epoch."
            )
        return int(state["epoch"]), int(state["given"])

    def plan(self, epoch: int, worker: Worker) -> tuple[Ints, Batches]:
        """What a worker reads in an epoch, in this order, and what it gives."""
        plan = EpochPlan(self._order, epoch)
        if self._order.batch_size is not None and not plan.is_even(worker):
            warnings.warn(
                f"The batches of {len(self._order.units)} samples cannot be shared out equally"
                f" among {worker.ranks} ranks, which may wait for each other forever:"
                " drop_last=True makes them equal.",
                UnequalRanks,
                stacklevel=2,
            )
        return plan.part(worker), plan.batches(worker)

    @contextmanager
    def reader(self, part: Ints, rest: Batches, epoch: int) -> Iterator[Reader]:
        """What reads the places of some batches, of a part that is in the order of shards."""
        store, seed = self.dataset.store, self._order.seed
        # Of the Hub the store itself keeps whole files in this machine's cache.
        far = isinstance(store.path, RemotePath) and not is_pinned(store.path)
        if store.manifest is None or not far:
            yield DirectReader(self.dataset, epoch, seed)
            return
        left = np.zeros(len(self.dataset), bool)
        left[rest.members()] = True
        with FetchedShards(store.path, self._check) as shards:
            yield SequentialReader(self.dataset, part[left[part]], shards, epoch, seed)

    def made(self, items: list[Any], places: Sequence[int]) -> Any:
        """What is given for these items; None for a single one that is damaged."""
        if self._order.batch_size is None:
            return items[0] if items else None
        return collate(items or [self.dataset.another(places[0])])

    def moved(self, epoch: int, given: int) -> None:
        """Notes where the latest iterator is; a new one begins its epoch anew."""
        self._at, self._start = (epoch, given), (epoch, 0)

    def ended(self, epoch: int, worker: Worker) -> None:
        """Notes that a worker has read an epoch; the last one to do so begins the next."""
        self._at = self._start = (epoch + 1, 0)
        if worker.number < _MOST_WORKERS:
            self._clock[1 + worker.number] = epoch + 1
            done = range(1, 1 + worker.workers)
            if worker.workers <= _MOST_WORKERS and all(self._clock[n] == epoch + 1 for n in done):
                self._clock[0] = epoch + 1

    def _refuse_accelerate(self) -> None:
        if asked_by_accelerate(*_SPLITS):
            raise UsageError(
                "A LatentStream shares its samples out among ranks by itself, and so does a loader"
                " that accelerate prepared: most of them would never be read. Give accelerate's"
                " prepare only model and optimizer, and move batches with .to(accelerator.device);"
                " or use LatentDataset with BucketBatchSampler."
            )

    def __getstate__(self) -> dict[str, Any]:
        # On the way to a worker that is spawned, which has neither accelerate nor ranks.
        self._refuse_accelerate()
        return {**self.__dict__, "_given_ranks": self.ranks}


class StreamIterator(Iterator[Any]):
    """What one worker gives of one epoch, from some position on."""

    def __init__(self, stream: LatentStream, worker: Worker, at: tuple[int, int]) -> None:
        self._stream, self._worker = stream, worker
        self._epoch, self._given = at
        self._running: Iterator[Any] | None = None

    def __next__(self) -> Any:
        if self._running is None:
            # A function: a method would hold the iterator, and with it the shards, for too long.
            self._running = _given(self._stream, self._worker, self._epoch, self._given)
        try:
            self._given, found = next(self._running)
        except StopIteration:
            self._stream.ended(self._epoch, self._worker)
            raise
        self._stream.moved(self._epoch, self._given)
        return found

    def state_dict(self) -> dict[str, Any]:
        """As the stream's, of what came from here."""
        return self._stream.state_of(self._epoch, self._given)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a state; UsageError where it is of another order."""
        self._epoch, self._given = self._stream.place_of(state)
        self._running = None
