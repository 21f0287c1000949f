"""Writes units of a store anew from their own shards, without encoding what they have."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from latentcli.core.errors import StoreError
from latentcli.core.fields import members_of_fields
from latentcli.core.store_dtype import held
from latentcli.core.types import Member, Row
from latentcli.jobs.encode.unit import EncodedUnit, document_of, samples_of
from latentcli.latents.schema import first_tensors, split_name, tensor_name
from latentcli.latents.stats import ChannelSums
from latentcli.shards.layout import SHARDS
from latentcli.shards.storage.paths import AnyPath
from latentcli.shards.store.commit import (
    CommitRecord,
    Contents,
    TarOrigin,
    commit_tar,
    commit_unit,
    read_record,
)
from latentcli.shards.store.fields import FieldsFile
from latentcli.shards.store.input_list import InputList
from latentcli.shards.store.manifest import Manifest
from latentcli.shards.store.shard_file import ShardFile, open_shard
from latentcli.shards.store.unit_state import row_pairs
from latentcli.shards.tar.shard import TarShard
from latentcli.shards.tar.write import TarSample
from latentcli.shards.tensors.packed import PackedMember
from latentcli.shards.tensors.write import Pieces

Fields = Mapping[str, Any]
"""The caption and other fields of a sample, as JSON values."""


@dataclass(frozen=True, slots=True)
class Rewriting:
    """What a unit becomes."""

    store: AnyPath
    manifest: Manifest
    inputs: InputList
    """The list as it is to be: it says which samples stay, and what they are called."""
    record: CommitRecord
    """The unit as it is."""
    pairs: Sequence[tuple[Row, Row]]
    """Rows of the record, and what becomes of them."""
    encoded: EncodedUnit | None = None
    """Samples that were encoded again, which take the place of those they are named like."""
    fields: Mapping[str, Fields] = field(default_factory=dict)
    """Fields, by key, of samples that get others."""

    @property
    def rows(self) -> list[Row]:
        """What is recorded of the samples."""
        fresh = self.encoded.rows if self.encoded is not None else {}
        return [fresh.get(row.key, row) for _, row in self.pairs]

    def kept(self) -> Iterator[tuple[str, Row]]:
        """Of the samples whose latents stay: the key that they have in the shard, and the row."""
        fresh = self.encoded.rows if self.encoded is not None else {}
        for old, row in self.pairs:
            if row.status == "ok" and row.key not in fresh:
                yield old.key, row


def rewriting_of(
    store: AnyPath,
    manifest: Manifest,
    inputs: InputList,
    unit: int,
    encoded: EncodedUnit | None = None,
    *,
    fields: Mapping[str, Fields] | None = None,
) -> Rewriting:
    """What a unit becomes by the list; StoreError where its record lacks one of the inputs."""
    record = read_record(store, unit, inputs.roots)
    pairs = row_pairs(record, inputs.rows(unit))
    if pairs is None:
        raise StoreError(
            f"unit {unit} of {store} does not have the inputs that are listed for it. Run the same"
            " command again; it checks what is left to do."
        )
    return Rewriting(store, manifest, inputs, record, pairs, encoded, fields or {})


def rewrite(task: Rewriting, metadata: Mapping[str, str] | None = None) -> CommitRecord:
    """Writes the unit; what it was is there until the new record is.

    `metadata` are the strings by which the shard describes itself, where the old one has none.
    """
    path = task.store / SHARDS / task.record.shard
    with open_shard(path) as shard:
        described = dict(shard.metadata) or dict(metadata or {})
        contents = contents_of(task, shard)
        if isinstance(shard, TarShard):
            samples = list(tar_samples(task, shard, described))
            return commit_tar(task.store, task.record.unit, samples, contents)
        tensors = {**old_tensors(task, shard), **(task.encoded.tensors if task.encoded else {})}
        return commit_unit(task.store, task.record.unit, tensors, described, contents)


def contents_of(task: Rewriting, shard: ShardFile) -> Contents:
    """What is recorded of the unit."""
    record, rows = task.record, task.rows
    origin = None
    if record.source is not None:
        row = task.inputs.rows(record.unit)[0]
        nothing = record.nothing_to_encode or 0
        origin = TarOrigin(row.source, record.sha256_source, row.key, nothing)
    sums = sums_of(task, shard)
    return Contents(
        spec_hash=record.spec_hash,
        rows=rows,
        channels=sums.to_json() if sums.count else None,
        origin=origin,
        fields=fields_of(task) if record.fields or not isinstance(shard, TarShard) else {},
        roots=task.inputs.roots,
        instead_of=record,
    )


def fields_of(task: Rewriting) -> dict[str, Fields]:
    """The fields of all samples that have some, those that stay and those that are new."""
    file = task.record.fields
    old = None if file is None else FieldsFile(task.store / SHARDS / file.file)
    found: dict[str, Fields] = {}
    for was, row in task.pairs:
        fields = task.fields.get(row.key)
        if fields is None and old is not None:
            fields = old.get(was.key)
        if fields:
            found[row.key] = fields
    return found


def old_tensors(task: Rewriting, shard: ShardFile) -> dict[str, Tensor | Pieces]:
    """The tensors that stay, under the names that they get; they are read when they are written."""
    names = dict[str, list[str]]()
    for name in shard.names:
        key, _, part = name.rpartition("/")
        names.setdefault(key, []).append(part)
    return {
        tensor_name(row.key, part): shard.tensor(f"{key}/{part}")
        for key, row in task.kept()
        for part in names.get(key, ())
    }


def tar_samples(
    task: Rewriting, shard: TarShard, metadata: Mapping[str, str]
) -> Iterator[TarSample]:
    """All samples of the unit, in the order of its rows."""
    prefix = f"{key}/" if (key := task.inputs.rows(task.record.unit)[0].key) else ""
    prefix = prefix if task.record.source is not None else ""
    old = {row.key: key for key, row in task.kept()}
    parts = dict[str, dict[str, Tensor | Pieces]]()
    for name, tensor in old_tensors(task, shard).items():
        key, part = split_name(name)
        parts.setdefault(key, {})[part] = tensor
    for row in task.rows:
        if row.key in old:
            yield TarSample(
                name=row.key.removeprefix(prefix),
                tensors=parts[row.key],
                metadata={**metadata, "key": row.key},
                document=document_of(row, metadata, task.inputs.roots),
                others=others_of(task, shard, old[row.key], row),
            )
        elif row.status == "ok" and task.encoded is not None:
            yield from samples_of(task.encoded, [row], metadata, task.inputs.roots)


def others_of(
    task: Rewriting, shard: TarShard, key: str, row: Row
) -> Sequence[Member | PackedMember]:
    """The members passed on with a sample; of a picture file these are its fields."""
    if task.record.source is None and row.key in task.fields:
        return members_of_fields(task.fields[row.key])
    return shard.packed_others(key)


def sums_of(task: Rewriting, shard: ShardFile) -> ChannelSums:
    """The channel sums of the unit's latents, in the order of its rows."""
    names = first_tensors(task.manifest.spec)
    old = {row.key: key for key, row in task.kept()}
    sums = ChannelSums()
    for row in task.rows:
        if row.key in old:
            add_latent(sums, {name: shard.tensor(f"{old[row.key]}/{name}") for name in names})
        elif row.status == "ok" and task.encoded is not None:
            encoded = task.encoded.tensors
            add_latent(sums, {n: loaded(encoded[tensor_name(row.key, n)]) for n in names})
    return sums


def add_latent(sums: ChannelSums, tensors: Mapping[str, Tensor]) -> None:
    """Takes in a latent [C, h, w], or a clip's [T, C, h, w], in the way of the encoder.

    `tensors` are those that it is stored as.
    """
    own = ChannelSums()
    (latent,) = held(tensors).values()
    own.add(latent[None] if latent.ndim == 3 else latent)
    sums.merge(own)


def loaded(tensor: Tensor | Pieces) -> Tensor:
    """A tensor that may be on the disk, in memory."""
    if isinstance(tensor, Tensor):
        return tensor
    data = bytearray(b"".join(tensor.pieces()))
    return torch.frombuffer(data, dtype=tensor.dtype).view(tensor.shape)


def rewrite_all(
    store: AnyPath, manifest: Manifest, inputs: InputList, units: Iterable[int]
) -> Iterator[CommitRecord]:
    """Writes units anew whose inputs have other names, or are fewer, than when they were made."""
    for unit in units:
        yield rewrite(rewriting_of(store, manifest, inputs, unit))
