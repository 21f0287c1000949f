"""One unit's latents as they are collected in; its shard and record, or part of a tar, out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor

from latentcli.core.types import Row
from latentcli.latents.schema import (
    PARTS,
    posterior_text,
    shard_metadata,
    split_name,
    tensor_name,
)
from latentcli.latents.stats import ChannelSums
from latentcli.shards.commit import TarOrigin, commit_tar, commit_unit
from latentcli.shards.spool import PackedMember, Spilling
from latentcli.shards.tar_write import TarSample
from latentcli.shards.write import Pieces

if TYPE_CHECKING:
    from latentcli.core.types import Member
    from latentcli.jobs.encode_plan import EncodePlan
    from latentcli.jobs.encode_stream import EncodeRun
    from latentcli.jobs.engine import Engine
    from latentcli.shards.manifest import Manifest


@dataclass(slots=True)
class EncodedUnit:
    """What a unit has become so far."""

    number: int
    spill: Spilling
    """Keeps what does not fit into memory."""
    prefix: str = ""
    """What the keys of its samples begin with in the store, and not in their tar."""
    rows: dict[str, Row] = field(default_factory=dict)
    """By key, in input order; a row is replaced when its picture is encoded."""
    tensors: dict[str, Tensor | Pieces] = field(default_factory=dict)
    others: dict[str, tuple[Member | PackedMember, ...]] = field(default_factory=dict)
    """By key: what else the sample holds."""
    sums: ChannelSums = field(default_factory=ChannelSums)


def commit(run: EncodeRun, unit: EncodedUnit) -> None:
    """write: the shard, then its commit record."""
    spec_hash = run.manifest.spec_hash
    rows = list(unit.rows.values())
    channels = unit.sums.to_json() if unit.sums.count else None
    run.held()
    with run.meter.stage("write", 0):
        if run.manifest.format == "webdataset":
            commit_tar(
                *(run.plan.store, unit.number, list(tar_samples(run, unit))),
                spec_hash=spec_hash,
                rows=rows,
                channels=channels,
                origin=origin_of(run, unit),
            )
        else:
            commit_unit(
                *(run.plan.store, unit.number, unit.tensors, unit_metadata(run, unit.number)),
                spec_hash=spec_hash,
                rows=rows,
                channels=channels,
                origin=origin_of(run, unit),
            )
        unit.spill.drop()


def origin_of(run: EncodeRun, unit: EncodedUnit) -> TarOrigin | None:
    """The tar that a unit was made from; None where inputs are no tars."""
    return run.tars.origins.pop(unit.number) if run.tars is not None else None


def tar_samples(run: EncodeRun, unit: EncodedUnit) -> Iterator[TarSample]:
    """The encoded samples of a unit, in input order, as members of a tar."""
    return samples_of(unit, list(unit.rows.values()), unit_metadata(run, unit.number))


def samples_of(
    unit: EncodedUnit, rows: Iterable[Row], metadata: Mapping[str, str]
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
                document=document_of(row, metadata),
                others=unit.others.get(row.key, ()),
            )


def drop_sample(unit: EncodedUnit, key: str) -> None:
    """Lets go of what was collected of a sample."""
    for part in PARTS:
        unit.tensors.pop(tensor_name(key, part), None)
    unit.others.pop(key, None)


def document_of(row: Row, metadata: Mapping[str, str]) -> dict[str, Any]:
    """What stands in the JSON member of a sample: the same fields in every one."""
    return {
        "key": row.key,
        "source": row.source,
        "original_size": row.original_size,
        "resized_size": row.resized_size,
        "crop": row.crop,
        "latent_shape": row.latent_shape,
        "latent_space": metadata["latent_space"],
    }


def unit_metadata(run: EncodeRun, unit: int) -> dict[str, str]:
    """The strings by which a shard describes itself."""
    return described(run.engine, run.plan, run.manifest, unit)


def described(engine: Engine, plan: EncodePlan, manifest: Manifest, unit: int) -> dict[str, str]:
    """The same, from a store's manifest."""
    model = manifest.model
    return shard_metadata(
        engine.model.spec,
        state=plan.state,
        posterior=posterior_text(plan.state, manifest.spec["latents"]["sample"]),
        model=model["name"],
        model_revision=model["revision"] or "",
        weights_sha256=model["weights_sha256"] or "",
        spec_hash=manifest.spec_hash,
        unit=unit,
        clips=plan.clips is not None,
    )
