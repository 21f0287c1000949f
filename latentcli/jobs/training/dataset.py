"""Reads a latent store as a torch dataset for a training loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, SupportsIndex

import torch
from torch import Tensor
from torch.utils.data import Dataset

from latentcli.core.errors import IncompleteStore, UsageError
from latentcli.core.fields import CAPTION
from latentcli.core.posterior import posterior_of
from latentcli.jobs.loader.clip_frames import fractions_of
from latentcli.jobs.store.latent_store import LatentStore, latent_of
from latentcli.jobs.training.batch_memory import BatchMemory
from latentcli.jobs.training.damage import damage_of
from latentcli.jobs.training.draws import Draw, EpochIndex
from latentcli.jobs.training.sample_index import Keys, SampleIndex
from latentcli.jobs.training.shared_numbers import SharedNumbers
from latentcli.shards.storage.paths import AnyPath
from latentcli.shards.store.presence import AGAIN

TOKEN = "class_token"
"""A part that an item has under its own name, where the store has it."""
FLIP = "_flip"
"""What the names of parts of the mirrored picture end in."""
FLIPS = ("random", "both", "none")
"""Of a picture and its mirror image, one is drawn, both are given, or the picture itself."""


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
        self.index = SampleIndex(self.store.rows_by_unit())
        # Only now it is known whether all records can be read.
        if not (allow_partial or skip_damaged):
            refuse_partial(self.store)
        if state is not None and self.index.shapes:
            # Of a state that the store does not have, it is told now and not in a worker.
            self.store.in_state(torch.zeros(self.index.shapes[0]), state)
        self._damage = damage_of(self.store) if skip_damaged else None
        self.state, self.dtype, self.sample, self.flip = state, dtype, sample, flip
        self.transform, self.captions, self.fields = transform, captions, fields
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

    def __getitem__(self, index: SupportsIndex) -> Any:
        return self._items([index], self.store)[0]

    def __getitems__(self, indices: Sequence[SupportsIndex]) -> list[Any]:
        """The items of a batch; with `skip_damaged`, those that can be read."""
        return self.present(indices) or [self.another(index) for index in indices[:1]]

    def present(self, indices: Sequence[SupportsIndex]) -> list[Any]:
        """The items of a batch that can be read; with `skip_damaged` there may be none."""
        if self._damage is None:
            return self._items(indices, self.store)
        return [item for index in indices for item in self.read(index, lambda _: self.store)]

    def read(self, index: SupportsIndex, source: Callable[[int], LatentStore]) -> list[Any]:
        """One item in a list, or none where its shard is damaged and `skip_damaged` allows that.

        `source` gives the store that a unit is read from.
        """
        unit = self.index.unit(self._places[index])
        if self._damage is None:
            return self._items([index], source(unit))
        if unit not in self._damage:
            with self._damage.leaving_out(unit):
                return self._items([index], source(unit))
        return []

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

    def _items(self, indices: Sequence[SupportsIndex], source: LatentStore) -> list[Any]:
        """Items of places, of which `source` has the shards."""
        places = [self._places[index] for index in indices]
        memory = BatchMemory(len(places), self.dtype)
        return [
            self._item(index, place, geometry, source, memory)
            for index, place, geometry in zip(
                indices, places, self.index.geometry(places), strict=True
            )
        ]

    def _item(
        self,
        index: SupportsIndex,
        place: int,
        geometry: tuple[Tensor, Tensor, Tensor],
        source: LatentStore,
        memory: BatchMemory,
    ) -> Any:
        key, unit = self.index.keys.key(place), self.index.unit(place)
        original, resized, crop = geometry
        item = {"key": key, "original_size": original, "resized_size": resized, "crop": crop}
        parts = source.parts(key, unit, copy=False)
        if len(parts) == 1 and "latent" in parts:  # with which nothing else can happen
            latent = parts["latent"]
            if self.state is not None:
                latent = self.store.in_state(latent, self.state)
            item["latent"] = memory.put(latent)
        else:
            own = {name: part.clone() for name, part in parts.items()}
            item |= self._latents(own, item, self._draw(index, place))
        if self.captions or self.fields:
            item |= self._texts(source.fields(key, unit))
        return item if self.transform is None else self.transform(item)

    def _draw(self, index: SupportsIndex, place: int) -> Draw:
        if isinstance(index, EpochIndex):
            return Draw(index.seed if self.seed is None else self.seed, index.epoch, place)
        return Draw(self.seed, 0 if self.seed is None else self._epoch[0], place)

    def _latents(
        self, parts: Mapping[str, Tensor], item: Mapping[str, Any], draw: Draw
    ) -> dict[str, Any]:
        """What an item has of tensors, and what the draw changes in the item."""
        own = {name: part for name, part in parts.items() if not name.endswith(FLIP)}
        found: dict[str, Any] = {}
        if len(own) < len(parts) and self.flip != "none":
            mirrored = {n.removesuffix(FLIP): p for n, p in parts.items() if n.endswith(FLIP)}
            if self.flip == "both":
                found |= {f"{name}{FLIP}": part for name, part in mirrored.items() if name == TOKEN}
                found["latent_flip"] = self._latent(mirrored, draw)
            else:
                found["flipped"] = torch.tensor(flipped := draw.coin())
                if flipped:
                    own |= mirrored
                    found["crop"] = mirrored_crop(item["crop"], item["resized_size"])
        found["latent"] = self._latent(own, draw)
        if TOKEN in own:
            found[TOKEN] = own[TOKEN]
        if "times" in own:
            found["seconds"] = own["times"].double() * float(fractions_of(own["clock"])[1])
        return found

    def _latent(self, parts: Mapping[str, Tensor], draw: Draw) -> Tensor:
        if self.sample:
            latent = posterior_of(parts).sample(generator=draw.generator())
        else:
            latent = latent_of(parts)
        if self.state is not None:
            latent = self.store.in_state(latent, self.state)
        return latent if self.dtype is None else latent.to(self.dtype)

    def _texts(self, fields: dict[str, Any]) -> dict[str, Any]:
        # Text in every item: a batch is made of equal types.
        texts = {"caption": fields.get(CAPTION, "")} if self.captions else {}
        return texts | ({"fields": fields} if self.fields else {})


def refuse_partial(store: LatentStore) -> None:
    """IncompleteStore where some of the store's latents are damaged or missing."""
    there = store.look_closely() if store.misses_fields() else store.presence
    if there.is_whole:
        return
    gone = there.unreadable + there.missing
    count = f", {gone:,} of {len(store) + gone:,} samples are missing" if gone else ""
    raise IncompleteStore(
        f"{store.path} is not whole{count} ({there.describe()}). {AGAIN} allow_partial=True takes"
        f" the {len(store):,} latents that are there."
    )


def mirrored_crop(crop: Tensor, size: Tensor) -> Tensor:
    """The crop [4] (left, top, right, bottom) of a picture of `size` [2], in its mirror image."""
    left, top, right, bottom = crop.tolist()
    width = int(size[0])
    return torch.tensor([width - right, top, width - left, bottom])
