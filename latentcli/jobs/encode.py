"""The encode job: images in, a latent store out, resumable at every instant."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latentcli.core.errors import LatentCliError
from latentcli.core.types import Picture, Row
from latentcli.images.codec import IMAGE_SUFFIXES
from latentcli.jobs.batching import batches
from latentcli.jobs.config import EncodeJob, check_choices
from latentcli.jobs.encode_plan import EncodePlan, plan_encode
from latentcli.jobs.encode_preview import preview
from latentcli.jobs.engine import Engine, encode_batch, load_engine
from latentcli.jobs.loader import Chunk, Intake, load_chunks, pick_workers, prepare
from latentcli.jobs.meter import IMAGE_STAGES, Meter
from latentcli.jobs.self_check import self_check
from latentcli.jobs.signals import StopRequest, stop_on_signals
from latentcli.jobs.talk import SILENT, Talk
from latentcli.latents.pack import pack
from latentcli.latents.schema import posterior_text, shard_metadata, tensor_name
from latentcli.latents.stats import ChannelSums
from latentcli.shards.commit import commit_unit, done_units
from latentcli.shards.inputs import InputList, write_inputs
from latentcli.shards.layout import FAILURES, INPUTS
from latentcli.shards.lock import StoreLock
from latentcli.shards.manifest import Manifest, read_manifest, write_manifest
from latentcli.shards.plan import FoundInput, append_units, assign_units, find_inputs
from latentcli.shards.store import finish, open_for_writing

CHECKED_INPUTS = 4
"""Pictures of the self-check."""


def run_encode(job: EncodeJob, talk: Talk = SILENT) -> dict[str, Any]:
    """Encodes what is not yet in the store; the result is the --json document of `encode`.

    LatentCliError kinds: UsageError (options), WeightsError, StoreError (folder, disk, another
    spec), SelfCheckError, Interrupted. What was committed before an error stays.
    """
    check_choices(job)
    began = time.perf_counter()
    found = find_inputs(job.sources, IMAGE_SUFFIXES)
    engine = load_engine(
        job.model,
        weights=job.weights,
        revision=job.revision,
        device=job.device,
        dtype=job.dtype,
    )
    plan = plan_encode(job, engine)
    if job.dry_run:
        return preview(plan, found, job.samples_per_shard)
    with StoreLock(plan.store) as lock, stop_on_signals() as stop:
        if not lock.held:
            talk.note(f"{plan.store} cannot be locked: see that no other job writes to it.")
        open_for_writing(plan.store, plan.manifest)
        inputs = freeze_inputs(plan.store, found, job.samples_per_shard, talk)
        done = done_units(plan.store, plan.manifest.spec_hash, inputs)
        todo = [unit for unit in range(inputs.units) if unit not in done]
        run = EncodeRun(job, engine, plan, inputs, stop, meter_for(inputs, todo, job, talk))
        manifest = checked(run, todo)
        encode_units(run, todo)
        final = finish(plan.store, manifest, inputs.units, ChannelSums())
    return document(run, final, time.perf_counter() - began)


def freeze_inputs(
    store: Path, found: Sequence[FoundInput], samples_per_shard: int, talk: Talk
) -> InputList:
    """The store's input list: made once, and only ever added to."""
    path = store / INPUTS
    if not path.exists():
        write_inputs(path, assign_units(found, samples_per_shard))
        return InputList.open(path)
    frozen = InputList.open(path)
    new = append_units(frozen, found, samples_per_shard)
    if not new:
        return frozen
    talk.note(f"{len(new)} inputs are new since the store was made; they are appended.")
    write_inputs(path, itertools.chain(frozen, new))
    return InputList.open(path)


def meter_for(inputs: InputList, todo: Sequence[int], job: EncodeJob, talk: Talk) -> Meter:
    """A meter of the inputs that are left."""
    total = sum(inputs.count(unit) for unit in todo)
    return Meter("encode", total, talk.progress, max(pick_workers(job.workers, total), 1))


@dataclass(frozen=True, slots=True)
class EncodeRun:
    """What the functions below work with."""

    job: EncodeJob
    engine: Engine
    plan: EncodePlan
    inputs: InputList
    stop: StopRequest
    meter: Meter

    @property
    def intake(self) -> Intake:
        return Intake(self.inputs, self.plan.recipe)


def checked(run: EncodeRun, todo: Sequence[int]) -> Manifest:
    """The manifest with the self-check's figures: run once, before the first shard."""
    manifest = read_manifest(run.plan.store)
    if not todo or not run.job.self_check or manifest.self_check is not None:
        return manifest
    pictures, keys = first_pictures(run)
    if not pictures:
        return manifest
    manifest = replace(manifest, self_check=self_check(run.engine, pictures, keys))
    write_manifest(run.plan.store, manifest)
    return manifest


def first_pictures(run: EncodeRun) -> tuple[list[Tensor], list[str]]:
    """The first few inputs that can be read, of the first few dozen."""
    seconds = dict.fromkeys(IMAGE_STAGES, 0.0)
    rows = run.inputs.rows(0, 0, 8 * CHECKED_INPUTS)
    prepared = (prepare(row, run.plan.recipe, seconds) for row in rows)
    good = ((pixels, row.key) for row, pixels in prepared if pixels is not None)
    pairs = list(itertools.islice(good, CHECKED_INPUTS))
    return [pixels for pixels, _ in pairs], [key for _, key in pairs]


def encode_units(run: EncodeRun, todo: Sequence[int]) -> None:
    """read, decode_image, preprocess | batch, encode | write: each overlaps the next."""
    if not todo:
        return
    workers = pick_workers(run.job.workers, run.meter.total)
    chunks = timed(load_chunks(run.intake, todo, workers), run.meter)
    pending: Future[None] | None = None
    with ThreadPoolExecutor(1, thread_name_prefix="write") as writer:
        for unit, of_unit in itertools.groupby(chunks, key=lambda chunk: chunk.task.unit):
            encoded = encode_unit(run, of_unit)
            if pending is not None:
                pending.result()
            pending = writer.submit(write_unit, run, unit, encoded)
        if pending is not None:
            pending.result()


def timed(chunks: Iterable[Chunk], meter: Meter) -> Iterator[Chunk]:
    """Passes chunks on, with the workers' seconds and our waiting noted."""
    stream = iter(chunks)
    while True:
        start = time.perf_counter()
        chunk = next(stream, None)
        if chunk is None:
            return
        if meter.stages:
            meter.waited += time.perf_counter() - start
        meter.begin()
        for stage, seconds in chunk.seconds.items():
            meter.add(stage, seconds, len(chunk.rows))
        yield chunk


@dataclass(slots=True)
class EncodedUnit:
    """One unit's latents while they are collected."""

    rows: dict[str, Row] = field(default_factory=dict)
    """By key, in input order; a row is replaced when its picture is encoded."""
    tensors: dict[str, Tensor] = field(default_factory=dict)
    sums: ChannelSums = field(default_factory=ChannelSums)


def encode_unit(run: EncodeRun, chunks: Iterable[Chunk]) -> EncodedUnit:
    """batch and encode for one unit."""
    unit = EncodedUnit()

    def pictures() -> Iterator[Picture]:
        for chunk in chunks:
            for row, pixels in chunk.pictures():
                unit.rows[row.key] = row
                if pixels is None:
                    fail(run, row)
                else:
                    yield Picture(row, pixels)

    for batch in batches(pictures(), lambda picture: picture.pixels, run.plan.batch_size):
        run.stop.check()
        take_batch(run, unit, batch)
    run.stop.check()
    return unit


def fail(run: EncodeRun, row: Row) -> None:
    """Counts a failed row; with --on-error stop the job ends here."""
    if run.job.on_error == "stop":
        raise LatentCliError(
            f"{row.source} failed at {row.stage}: {row.error}. The job stops at the first failure"
            " (--on-error stop); what is committed stays, and the same command goes on."
        )
    run.meter.advance(1, 1)


def take_batch(run: EncodeRun, unit: EncodedUnit, batch: Sequence[Picture]) -> None:
    """Encodes pictures of one size into the unit."""
    with run.meter.stage("encode", len(batch)):
        parts = guarded_encode(run, batch)
    packed = pack([picture.row.key for picture in batch], parts)
    unit.tensors.update(packed.tensors)
    first = next(iter(parts))
    for row in (picture.row for picture in batch):
        if row.key in packed.bad:
            reason = packed.bad[row.key]
            unit.rows[row.key] = replace(row, status="failed", stage="encode", error=reason)
            fail(run, unit.rows[row.key])
            continue
        latent = packed.tensors[tensor_name(row.key, first)]
        unit.sums.add(latent[None])
        unit.rows[row.key] = replace(row, latent_shape=tuple(latent.shape))
    run.meter.advance(len(batch) - len(packed.bad))


def guarded_encode(run: EncodeRun, batch: Sequence[Picture]) -> dict[str, Tensor]:
    """encode, with a device out of memory said in words."""
    pixels = torch.stack([picture.pixels for picture in batch])
    keys = [picture.row.key for picture in batch]
    try:
        return encode_batch(run.engine, pixels, keys, run.job.latents, run.job.sample)
    except torch.OutOfMemoryError as error:
        n, _, height, width = pixels.shape
        raise LatentCliError(
            f"The device ran out of memory on a batch of {n} pictures of {width}x{height}."
            " Start a new store with a smaller --batch-size, or a smaller --size."
        ) from error


def write_unit(run: EncodeRun, unit: int, encoded: EncodedUnit) -> None:
    """write: the shard, then its commit record."""
    spec = run.plan.manifest.spec
    metadata = shard_metadata(
        run.engine.model.spec,
        state=run.job.latents,
        posterior=posterior_text(run.job.latents, run.job.sample),
        model=spec["model"]["name"],
        model_revision=spec["model"]["revision"] or "",
        weights_sha256=spec["model"]["weights_sha256"] or "",
        spec_hash=run.plan.manifest.spec_hash,
        unit=unit,
    )
    with run.meter.stage("write", len(encoded.rows)):
        commit_unit(
            run.plan.store,
            unit,
            encoded.tensors,
            metadata,
            spec_hash=run.plan.manifest.spec_hash,
            rows=list(encoded.rows.values()),
            channels=encoded.sums.to_json() if encoded.sums.count else None,
        )


def document(run: EncodeRun, final: Manifest, seconds: float) -> dict[str, Any]:
    """The --json document."""
    meter, plan = run.meter, run.plan
    totals = final.totals
    encoded_now = meter.done - meter.failed
    return {
        "store": str(plan.store),
        "model": plan.manifest.model["name"],
        "encoded": encoded_now,
        "skipped": totals.encoded - encoded_now,
        "failed": totals.failed,
        "seconds": round(seconds, 3),
        "images_per_second": round(meter.final_rate, 2),
        "stages": meter.report(),
        "bottleneck": meter.bottleneck(),
        "inputs": totals.inputs,
        "shards": totals.shards,
        "bytes": totals.bytes,
        "latent_space": final.latent_space,
        "geometry": run.engine.model.spec.geometry,
        "device": run.engine.device_name,
        "dtype": run.engine.dtype,
        "self_check": final.self_check,
        "failures": str(plan.store / FAILURES) if totals.failed else None,
        "startup_seconds": round(meter.startup, 3),
        "waited_seconds": round(meter.waited, 3),
    }
