"""Collects the latents of one unit, and gives them as the samples of a tar."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from latentcli.core.types import Member, Row
from latentcli.latents.schema import PARTS, split_name, tensor_name
from latentcli.latents.stats import ChannelSums
from latentcli.shards.store.roots import Roots
from latentcli.shards.tar.write import TarSample
from latentcli.shards.tensors.packed import PackedMember
from latentcli.shards.tensors.spool import Spilling, Spool
from latentcli.shards.tensors.write import Pieces


@dataclass(slots=True)
class EncodedUnit:
    """What a unit has become so far."""

    number: int
    spill: Spilling
    """Keeps what does not fit into memory."""
    spools: list[Spool] = field(default_factory=list)
    """What its clips have on the disk."""
    prefix: str = ""
    """What the keys of its samples begin with in the store, and not in their input."""
    rows: dict[str, Row] = field(default_factory=dict)
    """By key, in input order; a row is replaced when its picture is encoded."""
    tensors: dict[str, Tensor | Pieces] = field(default_factory=dict)
    others: dict[str, tuple[Member | PackedMember, ...]] = field(default_factory=dict)
    """By key: what else the sample holds."""
    fields: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By key: the sample's caption and other fields, where they lie beside the shard."""
    sums: ChannelSums = field(default_factory=ChannelSums)

    def drop_spilled(self) -> None:
        """Deletes what it has on the disk: it is in a shard by now, or will never be."""
        self.spill.drop()
        for spool in self.spools:
            spool.drop()


def samples_of(
    unit: EncodedUnit, rows: Iterable[Row], metadata: Mapping[str, str], roots: Roots
) -> Iterator[TarSample]:
    """Those of these rows that are encoded, as members of a tar."""
    parts: dict[str, dict[str, Tensor | Pieces]] = {}
    for name, tensor in unit.tensors.items():
        key, part = split_name(name)
        parts.setdefault(key, {})[part] = tensor
    for row in rows:
        if row.status == "ok":
            yield TarSample(
                name=row.key.removeprefix(unit.prefix),
                tensors=parts[row.key],
                metadata={**metadata, "key": row.key},
                document=document_of(row, metadata, roots),
                others=unit.others.get(row.key, ()),
            )


def drop_sample(unit: EncodedUnit, key: str) -> None:
    """Lets go of what was collected of a sample."""
    for part in PARTS:
        unit.tensors.pop(tensor_name(key, part), None)
    unit.others.pop(key, None)
    unit.fields.pop(key, None)


def document_of(row: Row, metadata: Mapping[str, str], roots: Roots) -> dict[str, Any]:
    """What stands in the JSON member of a sample: the same fields in every one."""
    return {
        "key": row.key,
        "source": roots.stored(row.source),
        "original_size": row.original_size,
        "resized_size": row.resized_size,
        "crop": row.crop,
        "latent_shape": row.latent_shape,
        "latent_space": metadata["latent_space"],
    }
