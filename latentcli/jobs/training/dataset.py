"""Reads a latent store as a torch dataset for a training loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, SupportsIndex

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from latentcli.core.errors import IncompleteStore, StoreError, UsageError
from latentcli.jobs.store.latent_store import LatentStore
from latentcli.jobs.training.batch_columns import FLIP, FLIPS, Samples, Wanted
from latentcli.jobs.training.damage import damage_of
from latentcli.jobs.training.draws import Draw, EpochIndex
from latentcli.jobs.training.sample_index import Keys, SampleIndex
from latentcli.jobs.training.shared_numbers import SharedNumbers
from latentcli.shards.storage.paths import AnyPath
from latentcli.shards.store.presence import AGAIN


class LatentDataset(Dataset[dict[str, Any]]):
    """Items of a store for a training loop, at random, for a plain DataLoader.

    An item has "key", "latent" [C, h, w] (of a clip [T, C, h, w]), "caption" (text, "" where there
    is none) and, as int64 tensors, "original_size" [2] and "resized_size" [2] (width, height) and
    "crop" [4] (left, top, right, bottom, in pixels of the resized picture). "class_token"
    [features], float32, and a clip's "seconds" [T], float64, of when each frame is shown, are there
    where the store has them. `fields` adds "fields", all that is known of the sample by name;
    `captions=False` leaves "caption" out. `transform` is called on each item.

    `state` ("whitened", "scaled" or "raw") converts latents from whatever the store holds,
    computed in float32; None leaves them as stored, moments being their mode, which is raw.
    `dtype` casts them in the end (None keeps the stored bfloat16, or float32 where something was
    computed). `sample=True` draws a new sample of the posterior at each access, which needs a
    store made with --latents moments.

    Of a store made with --flip both, `flip="random"` gives the picture's own latent or the
    mirrored one, each half of the time, and "flipped" (bool) says which; the crop is then that of
    the mirrored picture. `flip="both"` gives both, "latent" and "latent_flip" (and
    "class_token_flip"), `flip="none"` the picture's own.

    What is drawn follows from a seed, the epoch and the index alone, whichever process reads it.
    A BucketBatchSampler brings its own seed and epoch along; `seed`, or one drawn here from
    `generator`, is for other samplers, with `set_epoch`. Without any of these each access draws
    anew from torch's own generator.

    `check="open"` compares each shard's sha256 with its commit record before its first use in a
    process, which reads it once more. A store with damaged or missing units, or that a job still
    writes to, is an IncompleteStore error unless `allow_partial` takes the latents that are there.
    A shard that turns out damaged later is a StoreError that names it. With `skip_damaged` both
    become warnings, one for each shard, and `damaged` lists their units; batches then lack those
    samples, and one with nothing left has another sample of the same size in it. UsageError for
    options that the store cannot serve.
    """

    def __init__(
        self,
        path: str | AnyPath,
        *,
        state: str | None = None,
        dtype: torch.dtype | None = None,
        sample: bool = False,
        flip: str = "random",
        seed: int | None = None,
        generator: torch.Generator | None = None,
        transform: Callable[[dict[str, Any]], Any] | None = None,
        captions: bool = True,
        fields: bool = False,
        check: str = "none",
        allow_partial: bool = False,
        skip_damaged: bool = False,
    ) -> None:
        self.store = LatentStore(path, check)
        if sample and self.store.state != "moments":
            raise UsageError(
                f"{path} holds {self.store.state} latents; only a store made with"
                " --latents moments can be sampled from."
            )
        if flip not in FLIPS:
            raise UsageError(f"flip is {flip!r}; allowed are {', '.join(FLIPS)}.")
        if dtype is not None and not isinstance(dtype, torch.dtype):
            raise UsageError(f"dtype is {dtype!r}; give a dtype of torch, such as torch.float32.")
        self.index = SampleIndex(self.store.rows_by_unit())
        # Only now it is known whether all records can be read.
        if not (allow_partial or skip_damaged):
            refuse_partial(self.store)
        if state is not None and self.index.shapes:
            # Of a state that the store does not have, it is told now and not in a worker.
            self.store.in_state(torch.zeros(self.index.shapes[0]), state)
        if flip == "both":
            refuse_unmirrored(self.store, self.index)
        self._damage = damage_of(self.store) if skip_damaged else None
        self._wanted = Wanted(state, dtype, sample, flip, captions, fields)
        self.transform = transform
        if generator is not None and seed is None:
            seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        self.seed = seed
        self._epoch = SharedNumbers(1)
        self._places = range(len(self.index))

    @property
    def keys(self) -> Keys:
        """Keys of the samples, in the order of the store."""
        return self.index.keys

    @property
    def damaged(self) -> tuple[int, ...]:
        """Units that `skip_damaged` left out so far, in any process of the loop, ascending."""
        return () if self._damage is None else self._damage.units

    def set_epoch(self, epoch: int) -> None:
        """Of the draws for indices that bring no epoch along; workers that run learn of it too."""
        self._epoch[0] = epoch

    def __len__(self) -> int:
        return len(self.index)

    def __repr__(self) -> str:
        space = self.store.metadata.get("latent_space")
        return f"LatentDataset({str(self.store.path)!r}, {len(self)} samples, {space})"

    def __getitem__(self, index: SupportsIndex) -> Any:
        if not hasattr(index, "__index__"):
            raise TypeError(
                f"A sample is taken by its number, not by {index!r}: dataset.keys has the keys in"
                " the order of the numbers, latentcli.open_store(path)[key] the latent of a key."
            )
        if not -len(self) <= index.__index__() < len(self):
            raise IndexError(f"There is no sample {index}: {self.store.path} has {len(self):,}.")
        return self._transformed(self._rows([index], self.store))[0]

    def __getitems__(self, indices: Sequence[SupportsIndex]) -> list[Any]:
        """The items of a batch; with `skip_damaged`, those that can be read."""
        return self.present(indices) or [self.another(index) for index in indices[:1]]

    def present(self, indices: Sequence[SupportsIndex]) -> list[Any]:
        """The items of a batch that can be read; with `skip_damaged` there may be none."""
        if self._damage is None:
            return self._transformed(self._rows(indices, self.store))
        units = [self._unit(index) for index in indices]
        sound = {unit for unit in set(units) if unit not in self._damage}
        left = [index for index, unit in zip(indices, units, strict=True) if unit in sound]
        try:
            return self._transformed(self._rows(left, self.store))
        except StoreError:
            return [item for index in left for item in self.read(index, lambda _: self.store)]

    def read(self, index: SupportsIndex, source: Callable[[int], LatentStore]) -> list[Any]:
        """One item in a list, or none where its shard is damaged and `skip_damaged` allows that.

        `source` gives the store that a unit is read from.
        """
        unit = self._unit(index)
        if self._damage is None:
            return self._transformed(self._rows([index], source(unit)))
        if unit not in self._damage:
            with self._damage.leaving_out(unit):
                return self._transformed(self._rows([index], source(unit)))
        return []

    def _unit(self, index: SupportsIndex) -> int:
        return self.index.unit(self._places[index])

    def another(self, index: SupportsIndex) -> Any:
        """An item of the same size from a shard that can be read; StoreError where none is left.

        Ranks wait for each other, so each must have something in each batch.
        """
        place = self._places[index]
        same = (self.index.shape_ids == self.index.shape_ids[place]).nonzero()[0]
        for other in (*same[same > place].tolist(), *same[same < place].tolist()):
            if found := self.present([other]):
                return found[0]
        shape = self.index.shapes[self.index.shape_ids[place]]
        raise IncompleteStore(
            f"{self.store.path} has no latent of size {list(shape)} left that can be read. {AGAIN}"
        )

    def _rows(self, indices: Sequence[SupportsIndex], source: LatentStore) -> list[dict[str, Any]]:
        """Items before their transform; `source` has their shards."""
        places = np.array([self._places[index] for index in indices], np.int64)
        sizes = self.index.shape_ids[places]
        if (sizes[1:] != sizes[:-1]).any():
            return [row for index in indices for row in self._rows([index], source)]
        if not len(places):
            return []
        # Everything is read and computed for all of them at once, and then taken apart: its time
        # goes into the many small steps of Python, not into the bytes.
        samples = Samples(self.index, places, source, lambda: self._draws(indices))
        columns = samples.columns(self._wanted, self.store.in_state)
        values = (v.unbind() if isinstance(v, Tensor) else v for v in columns.values())
        return [dict(zip(columns, row, strict=True)) for row in zip(*values, strict=True)]

    def _draws(self, indices: Sequence[SupportsIndex]) -> list[Draw]:
        return [self._draw(index, self._places[index]) for index in indices]

    def _draw(self, index: SupportsIndex, place: int) -> Draw:
        if isinstance(index, EpochIndex):
            return Draw(index.seed if self.seed is None else self.seed, index.epoch, place)
        return Draw(self.seed, 0 if self.seed is None else self._epoch[0], place)

    def _transformed(self, rows: list[dict[str, Any]]) -> list[Any]:
        return rows if self.transform is None else [self.transform(row) for row in rows]


def refuse_partial(store: LatentStore) -> None:
    """IncompleteStore where some of the store's latents are damaged or missing."""
    there = store.look_closely() if store.misses_fields() else store.presence
    if there.is_whole:
        return
    gone = there.unreadable + there.missing
    count = f", {gone:,} of {len(store) + gone:,} samples are missing" if gone else ""
    raise IncompleteStore(
        f"{store.path} is not complete{count} ({there.describe()}). {AGAIN} allow_partial=True"
        f" takes the {len(store):,} latents that are there."
    )


def refuse_unmirrored(store: LatentStore, index: SampleIndex) -> None:
    """UsageError where a store has no latents of mirrored pictures."""
    if not len(index):
        return
    if store.manifest is not None and store.manifest.spec.get("latents", {}).get("flip"):
        return
    # A single shard, or a store whose spec does not say.
    names = store.part_names(index.keys[0], index.unit(0))
    if not any(name.endswith(FLIP) for name in names):
        raise UsageError(
            f"flip is 'both', and {store.path} has no latents of mirrored pictures: leave flip out,"
            " or encode with --flip both."
        )
