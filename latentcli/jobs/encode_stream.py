"""Units in, committed shards out: the stream of the encode job, from bytes to the disk."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from latentcli.core.errors import LatentCliError
from latentcli.core.types import Picture, Row
from latentcli.jobs.batching import batches
from latentcli.jobs.config import EncodeJob
from latentcli.jobs.encode_plan import EncodePlan, batch_elements
from latentcli.jobs.engine import Engine, encode_batch
from latentcli.jobs.lane import Lane
from latentcli.jobs.loader import Chunk, Intake, open_chunks, pick_workers
from latentcli.jobs.meter import Meter
from latentcli.jobs.signals import StopRequest
from latentcli.latents.pack import pack
from latentcli.latents.schema import posterior_text, shard_metadata, tensor_name
from latentcli.latents.stats import ChannelSums
from latentcli.shards.commit import commit_unit
from latentcli.shards.inputs import InputList
from latentcli.shards.manifest import Manifest
from latentcli.shards.spool import Spooled

BATCHES_BEHIND = 4
"""Encoded batches that may wait to be packed and written."""


@dataclass(frozen=True, slots=True)
class EncodeRun:
    """What the stream works with."""

    job: EncodeJob
    engine: Engine
    plan: EncodePlan
    manifest: Manifest
    """The store's own, which may name the model in other words than this run does."""
    inputs: InputList
    stop: StopRequest
    meter: Meter
    committed: Counter[str] = field(default_factory=Counter)
    """Inputs encoded by this run and, of clips, their frames."""

    @property
    def intake(self) -> Intake:
        return Intake(self.inputs, self.plan.recipe)


@dataclass(slots=True)
class EncodedUnit:
    """One unit's latents while they are collected."""

    number: int
    rows: dict[str, Row] = field(default_factory=dict)
    """By key, in input order; a row is replaced when its picture is encoded."""
    tensors: dict[str, Tensor | Spooled] = field(default_factory=dict)
    sums: ChannelSums = field(default_factory=ChannelSums)


def encode_units(run: EncodeRun, todo: Sequence[int]) -> None:
    """read, decode_image, preprocess | batch, encode | write: each overlaps the next."""
    if not todo:
        return
    workers = pick_workers(run.job.workers, run.meter.total)
    with open_chunks(run.intake, todo, workers) as chunks, Lane(BATCHES_BEHIND) as lane:
        stream = timed(chunks, run.meter)
        for number, of_unit in itertools.groupby(stream, key=lambda chunk: chunk.task.unit):
            unit = EncodedUnit(number)
            for batch in batches(
                pictures(run, unit, of_unit),
                lambda picture: picture.pixels,
                run.plan.batch_size,
                batch_elements(run.plan.batch_size),
            ):
                run.stop.check()
                encode_into(run, unit, batch, lane)
            run.stop.check()
            lane.submit(write_unit, run, unit)


def timed(chunks: Iterable[Chunk], meter: Meter) -> Iterator[Chunk]:
    """Passes chunks on, with the workers' seconds and our waiting noted."""
    stream = iter(chunks)
    for number in itertools.count():
        start = time.perf_counter()
        chunk = next(stream, None)
        if chunk is None:
            return
        # Chunks come in order, one from each worker in turn: then all of them have started.
        starting = number < meter.workers
        meter.begin(again=starting)
        meter.waited += 0.0 if starting else time.perf_counter() - start
        for stage, seconds in chunk.seconds.items():
            meter.add(stage, seconds, len(chunk.rows))
        yield chunk


def pictures(run: EncodeRun, unit: EncodedUnit, chunks: Iterable[Chunk]) -> Iterator[Picture]:
    """The pictures of a unit; every row, failed ones too, is noted in it."""
    for chunk in chunks:
        for row, pixels in chunk.pictures():
            unit.rows[row.key] = row
            if pixels is None:
                fail(run, row)
            else:
                yield Picture(row, pixels)


def fail(run: EncodeRun, row: Row) -> None:
    """Counts a failed row; with --on-error stop the job ends here."""
    if run.job.on_error == "stop":
        raise LatentCliError(
            f"{row.source} failed at {row.stage}: {row.error}. The job stops at the first failure"
            " (--on-error stop); what is committed stays, and the same command goes on."
        )
    # Of clips, the frames are counted.
    run.meter.advance(1 if run.plan.clips is None else 0, 1)


def encode_into(run: EncodeRun, unit: EncodedUnit, batch: Sequence[Picture], lane: Lane) -> None:
    """encode; packing waits in the lane, so that the device goes on."""
    pixels = torch.stack([picture.pixels for picture in batch])
    rows = [picture.row for picture in batch]
    keys = [row.key for row in rows]
    try:
        with run.meter.stage("encode", len(batch)):
            parts = encode_batch(
                *(run.engine, pixels, keys, run.plan.state, run.job.sample),
                class_token=run.job.class_token,
            )
    except torch.OutOfMemoryError as error:
        reason = out_of_memory(pixels, error)
        unit.rows[keys[0]] = replace(rows[0], status="failed", stage="encode", error=reason)
        fail(run, unit.rows[keys[0]])
        return
    lane.submit(collect, run, unit, rows, parts)


def out_of_memory(pixels: Tensor, error: torch.OutOfMemoryError) -> str:
    """The reason for a single picture's row; LatentCliError for a batch, which can be smaller."""
    n, _, height, width = pixels.shape
    if n > 1:
        raise LatentCliError(
            f"The device ran out of memory on a batch of {n} pictures of {width}x{height}."
            " Start a new store with a smaller --batch-size, or a smaller --size."
        ) from error
    return f"the device ran out of memory on a picture of {width}x{height}"


def collect(
    run: EncodeRun, unit: EncodedUnit, rows: Sequence[Row], parts: dict[str, Tensor]
) -> None:
    """Packs a batch into its unit; a latent that is not finite fails its row."""
    with run.meter.stage("write", 0):
        packed = pack([row.key for row in rows], parts)
        unit.tensors.update(packed.tensors)
        first = next(iter(parts))
        for row in rows:
            if row.key in packed.bad:
                reason = packed.bad[row.key]
                unit.rows[row.key] = replace(row, status="failed", stage="encode", error=reason)
                fail(run, unit.rows[row.key])
                continue
            latent = packed.tensors[tensor_name(row.key, first)]
            unit.sums.add(latent[None])
            unit.rows[row.key] = replace(row, latent_shape=tuple(latent.shape))
    run.meter.advance(len(rows) - len(packed.bad))


def write_unit(run: EncodeRun, unit: EncodedUnit) -> None:
    """write: the shard, then its commit record."""
    model, state = run.manifest.model, run.plan.state
    metadata = shard_metadata(
        run.engine.model.spec,
        state=state,
        posterior=posterior_text(state, run.job.sample),
        model=model["name"],
        model_revision=model["revision"] or "",
        weights_sha256=model["weights_sha256"] or "",
        spec_hash=run.manifest.spec_hash,
        unit=unit.number,
        clips=run.plan.clips is not None,
    )
    with run.meter.stage("write", len(unit.rows)):
        record = commit_unit(
            run.plan.store,
            unit.number,
            unit.tensors,
            metadata,
            spec_hash=run.manifest.spec_hash,
            rows=list(unit.rows.values()),
            channels=unit.sums.to_json() if unit.sums.count else None,
        )
    run.committed["encoded"] += record.encoded
    if run.plan.clips is not None:
        shapes = (row.latent_shape for row in record.rows)
        run.committed["frames"] += sum(shape[0] for shape in shapes if shape is not None)
