"""Writes encoded units where they go: as a shard and its commit record into a store."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from latentcli.latents.schema import (
    posterior_text,
    shard_metadata,
)
from latentcli.shards.store.commit import TarOrigin, commit_tar, commit_unit
from latentcli.shards.tar.write import TarSample

if TYPE_CHECKING:
    from latentcli.jobs.encode.plan import EncodePlan
    from latentcli.jobs.encode.run import EncodeRun
    from latentcli.jobs.inference.engine import Engine
    from latentcli.shards.store.manifest import Manifest
from latentcli.jobs.encode.unit import EncodedUnit, samples_of


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
