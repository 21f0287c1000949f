"""Reads units and chosen latents of a store or shard, whatever of it is damaged."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latentcli.core.errors import StoreError
from latentcli.core.fields import CAPTION
from latentcli.core.store_dtype import QUANTISED, SCALE, held
from latentcli.core.types import Row
from latentcli.jobs.store.latent_store import latent_of
from latentcli.shards.layout import SHARDS, SUFFIXES, record_path, shard_path
from latentcli.shards.storage.hub import fetch
from latentcli.shards.storage.paths import AnyPath
from latentcli.shards.store.commit import CommitRecord, read_record
from latentcli.shards.store.fields import iter_fields
from latentcli.shards.store.presence import Presence
from latentcli.shards.store.reader import StoreReader
from latentcli.shards.store.shard_file import ShardFile, open_shard

FRAMES = 8
"""Frames that are looked at of a clip, evenly over it."""
_PARTS = ("latent", "mean", "logsnr", "logvar")
_NAMES = tuple(part + end for part in _PARTS for end in ("", QUANTISED, SCALE))
"""Tensors that a latent is made of."""
_KEPT = 50


@dataclass(frozen=True, slots=True)
class UnitRead:
    """What a unit's commit record says; of a single shard, what the shard says."""

    number: int
    rows: Sequence[Row]
    bytes: int
    """Size of the shard."""
    channels: Mapping[str, Any] | None
    """Sums of the latents' channels, as JSON."""
    captions: int | None = None
    """Samples with a caption; None where one would have to fetch or read shards to know it."""


@dataclass(slots=True)
class Damage:
    """What cannot be read, in plain sentences; the first ones are kept."""

    sentences: list[str] = field(default_factory=list)
    count: int = 0

    def add(self, error: Exception | str) -> None:
        """Takes one problem in; the same sentence counts once."""
        if str(error) in self.sentences:
            return
        self.count += 1
        if len(self.sentences) < _KEPT:
            self.sentences.append(str(error))


class ReadableStore:
    """A store, or one shard, read unit by unit; StoreError where there is neither.

    What is damaged is noted in `damage` and passed by.
    """

    def __init__(self, path: AnyPath) -> None:
        self.damage = Damage()
        self._reader = StoreReader(path)
        self.path = self._reader.path
        self.manifest = self._reader.manifest
        """None for a single shard."""
        self.numbers = self._reader.units
        """Of the units that there are, ascending."""
        for unit, why in self.presence.damaged.items():
            self.damage.add(f"Unit {unit}: {why}.")
        self._encoded = array("q", [0] * len(self.numbers))
        self.mirrored = False
        """Whether samples have latents of mirrored pictures too, which are not given out."""
        self.metadata: dict[str, str] = {} if self.manifest else dict(self._reader.metadata)
        """The strings by which the shards describe themselves; empty until `describe`."""

    @property
    def presence(self) -> Presence:
        """What of the store is there."""
        return self._reader.presence

    def units(self) -> Iterator[UnitRead]:
        """All units that can be read, in order; also counts their samples."""
        if self.manifest is not None:
            fetch(record_path(self.path, number) for number in self.numbers)
        for index, number in enumerate(self.numbers):
            try:
                unit = self._unit(number)
            except StoreError as error:
                self._reader.look_closely()
                self.damage.add(error)
                continue
            self._encoded[index] = sum(row.status == "ok" for row in unit.rows)
            yield unit

    def describe(self) -> None:
        """Fills `metadata` from the first shard that says something of itself."""
        for number in self.numbers:
            if self.metadata:
                return
            try:
                with self._open(number) as shard:
                    self.metadata = dict(shard.metadata)
            except StoreError as error:
                self.damage.add(error)

    @property
    def samples(self) -> int:
        """Samples that have latents, in the units that `units` gave."""
        return sum(self._encoded)

    def _unit(self, number: int) -> UnitRead:
        if self.manifest is None:
            rows = self._reader.unit_rows(number)
            return UnitRead(number, rows, self.path.stat().st_size, None)
        record = read_record(self.path, number)
        captions = self._captions(record)
        return UnitRead(number, record.rows, record.bytes, record.channels, captions)

    def _rows(self, number: int) -> Sequence[Row]:
        if self.manifest is None:
            return self._reader.unit_rows(number)
        return read_record(self.path, number).rows

    def _captions(self, record: CommitRecord) -> int | None:
        """Captions in the small file beside a shard of this machine; those of a tar are in it."""
        if not isinstance(self.path, Path) or record.shard.endswith(SUFFIXES["webdataset"]):
            return None
        if record.fields is None:
            return 0
        if record.unit in self.presence.without_fields:
            return None
        try:
            rows = iter_fields(self.path / SHARDS / record.fields.file)
            return sum(CAPTION in fields for _, fields in rows)
        except StoreError as error:
            self.damage.add(error)
            return None

    def latents(self, indices: Sequence[int]) -> Iterator[tuple[int, Row, Tensor]]:
        """(index, row, latents [n, C, h, w]) of samples by their indices among those with latents.

        `indices` ascend. n is 1 for a picture, and up to FRAMES evenly spread frames of a clip. One
        shard is open at a time. Call it after `units`.
        """
        first = 0
        for number, encoded in zip(self.numbers, self._encoded, strict=True):
            start, stop = bisect_left(indices, first), bisect_left(indices, first + encoded)
            if start < stop:
                yield from self._latents(number, first, indices[start:stop])
            first += encoded

    def _latents(
        self, number: int, first: int, indices: Sequence[int]
    ) -> Iterator[tuple[int, Row, Tensor]]:
        try:
            rows = [row for row in self._rows(number) if row.status == "ok"]
            shard = self._open(number)
        except StoreError as error:
            self.damage.add(error)
            return
        with shard:
            for index in indices:
                row = rows[index - first]
                flips = (f"{row.key}/{p}_flip" for p in _PARTS)
                self.mirrored |= any({f, f + QUANTISED} & shard.entries.keys() for f in flips)
                try:
                    yield index, row, read_sample(shard, row.key)
                except (StoreError, ValueError) as error:
                    self.damage.add(error)

    def _open(self, number: int) -> ShardFile:
        suffix = self.manifest.suffix if self.manifest else ""
        return open_shard(shard_path(self.path, number, suffix) if suffix else self.path)


def spread(count: int, total: int) -> Sequence[int]:
    """`count` of the indices 0 to `total`, evenly over them, the first and the last among them."""
    if count >= total:
        return range(total)
    if count == 1:
        return [0]
    return sorted({round(i * (total - 1) / (count - 1)) for i in range(count)})


def read_sample(shard: ShardFile, key: str) -> Tensor:
    """The latents [n, C, h, w] of a sample, float32; of moments, the posterior's mode.

    StoreError where there are none, or they have another form.
    """
    names = {name: f"{key}/{name}" for name in _NAMES if f"{key}/{name}" in shard.entries}
    if not {"latent", "mean"} & {name.removesuffix(QUANTISED) for name in names}:
        raise StoreError(f"{shard.path} has no latent of {key!r}, though its record says so.")
    values = (full for name, full in names.items() if not name.endswith(SCALE))
    axes = {len(shard.entries[full].shape) for full in values}
    if axes == {4}:
        return torch.cat(list(_frames(shard, names)))
    found = latent_of(held({name: shard.tensor(full) for name, full in names.items()}))
    if found.ndim != 3 or not found.numel() or not found.is_floating_point():
        raise StoreError(
            f"{shard.path} holds a latent of {key!r} that is {found.dtype} of shape"
            f" {tuple(found.shape)}, not numbers of [C, h, w]."
        )
    return found[None].float()


def _frames(shard: ShardFile, names: Mapping[str, str]) -> Iterator[Tensor]:
    total = min(shard.entries[name].shape[0] for name in names.values())
    if not total:
        raise StoreError(f"{shard.path} holds a clip without frames: {min(names.values())}.")
    for i in spread(FRAMES, total):
        rows = {name: shard.rows(full, i, i + 1) for name, full in names.items()}
        yield latent_of(held(rows)).float()
