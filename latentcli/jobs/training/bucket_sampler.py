"""Samples batches of one latent size each, shared out among the ranks of a training job."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset, Sampler, Subset

from latentcli.core.errors import UsageError
from latentcli.jobs.training.accelerate_shares import asked_by_accelerate
from latentcli.jobs.training.batch_plan import Batches, by_size, divided, full_ones, room
from latentcli.jobs.training.dataset import LatentDataset
from latentcli.jobs.training.draws import EpochIndex
from latentcli.jobs.training.ranks import UnequalRanks, ranks

_SHARDS = "BatchSamplerShard"
"""Accelerate's class that takes every n-th batch of a batch sampler."""


class BucketBatchSampler(Sampler[list[int]]):
    """Batches of indices of one latent size each, for DataLoader(batch_sampler=...).

    In each epoch every sample comes once, over all ranks together, and all ranks have equally many
    batches. For that a few batches are smaller than `batch_size`: the last one of each size, and
    fewer than there are ranks that are halved to make the number even. Where that cannot be, as
    with `batch_size` 1, a warning says so: ranks that differ in number hang at the end of an epoch
    where they wait for each other. `drop_last=True` leaves out what does not fill a batch of
    `batch_size`, and batches that are too many for the ranks.
    `repeat_last=True` fills all batches up, with samples of the same size that come twice then.

    `num_replicas` and `rank` are found as in `ranks`. Each epoch has another order, which follows
    from `seed` and the epoch; `shuffle=False` keeps the store's order. The epoch is 0 at first and
    goes on by itself when all batches of one were given, or is set with `set_epoch`. Indices
    bring epoch and seed along, by which a LatentDataset draws its samples.

    `state_dict` says how far this epoch is, and `load_state_dict` goes on from there, in a sampler
    of the same dataset and options on as many ranks. A `torchdata` StatefulDataLoader does both,
    exactly, with any number of workers. With worker processes of a plain DataLoader more batches
    were given than the loop has had: tell `state_dict(batches)` how many it had in this epoch.

    With accelerate's `prepare` all batches are given to its own split, which then comes to the
    same ones. UsageError where the options do not go together.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        batch_size: int,
        *,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
        repeat_last: bool = False,
        num_replicas: int | None = None,
        rank: int | None = None,
    ) -> None:
        if drop_last and repeat_last:
            raise UsageError("drop_last leaves samples out and repeat_last adds some: choose one.")
        if batch_size < 1:
            raise UsageError(f"batch_size is {batch_size}; a batch has at least one sample.")
        self._sizes = _sizes_of(dataset)
        if drop_last:
            check_any_is_full(self._sizes, batch_size)
        # Not by the name batch_size: accelerate would take smaller batches for the end.
        self._size, self._shuffle, self.seed = batch_size, shuffle, seed
        self._drop, self._repeat = drop_last, repeat_last
        self._given_ranks = num_replicas, rank
        self._plan: tuple[tuple[int, int], Batches] | None = None
        self._start = self._begun = self._at = (0, 0)
        ranks(num_replicas, rank)  # what is wrong with them is told here

    @property
    def ranks(self) -> tuple[int, int]:
        """(number of ranks, this one's)."""
        return ranks(*self._given_ranks)

    @property
    def sampler(self) -> Self:
        """Itself: accelerate and Lightning look here for what has a `set_epoch`."""
        return self

    @property
    def epoch(self) -> int:
        """The epoch of the next batch."""
        return self._at[0]

    def set_epoch(self, epoch: int) -> None:
        """Begins another epoch; the one that is being read, or was loaded, goes on."""
        if epoch != self._start[0]:
            self._start = self._begun = self._at = (epoch, 0)

    def __len__(self) -> int:
        """Batches of this rank in an epoch."""
        total = len(self.plan(self._at[0]))
        return total if asked_by_accelerate(_SHARDS) else self._own(total)

    def _own(self, total: int) -> int:
        """Batches of this rank, of all ranks' `total`."""
        count, rank = self.ranks
        return len(range(rank, total, count))

    def __iter__(self) -> BucketBatches:
        count, rank = (1, 0) if asked_by_accelerate(_SHARDS) else self.ranks
        return BucketBatches(self, count, rank, self._start)

    def state_dict(self, batches: int | None = None) -> dict[str, Any]:
        """Where this epoch is: after `batches` of this rank, or else after those that were given.

        The same on each rank.
        """
        epoch, given = self._at if batches is None else (self._begun[0], batches)
        return {"epoch": epoch, "batches": given, **self._options()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a state; UsageError where it is of other samples, options or ranks."""
        self.check(state)
        epoch, given = int(state["epoch"]), int(state["batches"])
        ended = given >= self._own(len(self.plan(epoch)))
        self._start = self._begun = self._at = (epoch + 1, 0) if ended else (epoch, given)

    def check(self, state: Mapping[str, Any]) -> None:
        """UsageError where a state is not one of this sampler."""
        own = self._options()
        odd = [
            f"{name} is {state.get(name)!r} in the state and {value!r} here"
            for name, value in own.items()
            if state.get(name) != value
        ]
        if odd:
            raise UsageError(
                f"The state of the sampler is of another order of batches: {'; '.join(odd)}."
                " Resume with the same dataset and options, or start a new epoch."
            )

    def _options(self) -> dict[str, Any]:
        """What the order of batches depends on, the epoch apart."""
        return {
            "samples": len(self._sizes),
            "batch_size": self._size,
            "shuffle": self._shuffle,
            "seed": self.seed,
            "drop_last": self._drop,
            "repeat_last": self._repeat,
            "num_replicas": self.ranks[0],
        }

    def moved(self, before: tuple[int, int], after: tuple[int, int]) -> None:
        """Notes where the latest iterator was, and where it is; a new one begins its epoch anew."""
        self._begun, self._at = before, after
        self._start = after[0], 0

    def plan(self, epoch: int) -> Batches:
        """The batches of all ranks in an epoch; of `n` ranks, rank `r` has r, r + n, r + 2n..."""
        count = self.ranks[0]
        if self._plan is None or self._plan[0] != (epoch, count):
            self._plan = (epoch, count), self._planned(epoch, count)
        return self._plan[1]

    def _planned(self, epoch: int, count: int) -> Batches:
        places = np.arange(len(self._sizes))
        rng = np.random.default_rng([self.seed, epoch])
        if self._shuffle:
            places = rng.permutation(places)
        batches = by_size(places, self._sizes[places], self._size)
        if self._drop:
            batches = full_ones(batches, self._size)
        if self._repeat:
            batches = filled(batches, self._sizes, self._size)
        if self._shuffle:
            batches = batches.part(rng.permutation(len(batches)))
        return self._even(batches, count)

    def _even(self, batches: Batches, count: int) -> Batches:
        """Batches whose number is a multiple of the ranks'."""
        over = len(batches) % count
        if not over:
            return batches
        if self._drop and over == len(batches):
            raise UsageError(
                f"{over} full batches are fewer than {count} ranks, so drop_last leaves none of"
                " them: take a smaller batch_size, or repeat_last=True."
            )
        if self._drop:
            return batches.part(slice(len(batches) - over))
        if self._repeat:
            again = np.arange(len(batches) + count - over) % len(batches)
            return batches.part(again)
        if count - over <= room(batches):
            return divided(batches, count - over)
        warnings.warn(
            f"{len(batches)} batches cannot be shared out equally among {count} ranks, so the"
            f" first {over} have one more than the others and may wait for them forever:"
            " drop_last=True or repeat_last=True makes them equal.",
            UnequalRanks,
            stacklevel=2,
        )
        return batches


class BucketBatches(Iterator[list[int]]):
    """The batches of one epoch and one rank, from some position on."""

    def __init__(
        self, sampler: BucketBatchSampler, count: int, rank: int, at: tuple[int, int]
    ) -> None:
        self._sampler, self._count, self._rank = sampler, count, rank
        self._place = at

    @property
    def _place(self) -> tuple[int, int]:
        """Epoch, and batches that each rank has had."""
        return self._epoch, self._given * self._count // self._sampler.ranks[0]

    @_place.setter
    def _place(self, at: tuple[int, int]) -> None:
        self._epoch = at[0]
        self._given = at[1] * self._sampler.ranks[0] // self._count

    def __next__(self) -> list[int]:
        plan = self._sampler.plan(self._epoch)
        number = self._given * self._count + self._rank
        before = self._place
        if number >= len(plan):
            self._sampler.moved(before, (self._epoch + 1, 0))
            raise StopIteration
        self._given += 1
        self._sampler.moved(before, self._place)
        return [EpochIndex(place, self._epoch, self._sampler.seed) for place in plan[number]]

    def state_dict(self) -> dict[str, Any]:
        """As the sampler's, of the batches that came from here."""
        epoch, given = self._place
        return {**self._sampler.state_dict(), "epoch": epoch, "batches": given}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a state; UsageError where it is not one of this sampler."""
        self._sampler.check(state)
        self._place = int(state["epoch"]), int(state["batches"])


def check_any_is_full(sizes: npt.NDArray[np.int32], batch_size: int) -> None:
    """UsageError where no size has samples for a full batch: a loop would turn without a batch."""
    most = int(np.bincount(sizes).max(initial=0))
    if len(sizes) and most < batch_size:
        raise UsageError(
            f"batch_size is {batch_size}, and of no latent size there are more than {most} samples,"
            " so drop_last leaves out all of them: take a smaller batch_size, or repeat_last=True."
        )


def filled(batches: Batches, sizes: npt.NDArray[np.int32], batch_size: int) -> Batches:
    """Batches that are all full, with samples of the same size again in those that were not."""
    rows = []
    for batch in batches:
        same = batch
        if len(batch) < batch_size:
            others = np.flatnonzero(sizes == sizes[batch[0]])
            others = others[~np.isin(others, batch)]
            same = np.resize([*batch, *others], batch_size).tolist()
        rows.append(same)
    places = np.array(rows, np.int64).reshape(-1)
    starts = np.arange(0, len(places), batch_size, dtype=np.int64)
    return Batches(places, np.stack([starts, starts + batch_size], axis=1))


def _sizes_of(dataset: Dataset[Any]) -> npt.NDArray[np.int32]:
    """For each sample the number of its latent's size."""
    if isinstance(dataset, LatentDataset):
        return dataset.index.shape_ids
    if isinstance(dataset, Subset):
        return _sizes_of(dataset.dataset)[np.asarray(dataset.indices, np.int64)]
    raise UsageError(
        f"BucketBatchSampler makes batches of a LatentDataset or a Subset of one, and was given"
        f" {type(dataset).__name__}. Where Lightning put a sampler of its own here, tell it"
        " Trainer(use_distributed_sampler=False)."
    )
