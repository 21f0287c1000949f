"""Encodes pictures: the stream of the encode job, from bytes to the disk."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from latentcli.core.store_dtype import held, part_of, stored_names
from latentcli.core.types import FILTERED, Picture, Row
from latentcli.jobs.encode.failures import SEEN, count_refused, fail
from latentcli.jobs.encode.run import EncodeRun
from latentcli.jobs.encode.texts import keep_others
from latentcli.jobs.encode.unit import EncodedUnit
from latentcli.jobs.inference.accelerator import DeviceTimer
from latentcli.jobs.inference.batch_size import batch_elements
from latentcli.jobs.inference.encode_batch import encode_on_device
from latentcli.jobs.inference.split_on_oom import too_large
from latentcli.jobs.loader.batches import batches
from latentcli.jobs.loader.loader import open_chunks, timed
from latentcli.jobs.loader.prepare import Chunk, Task
from latentcli.jobs.runtime.background_thread import BackgroundThread
from latentcli.latents.pack import pack_stored
from latentcli.latents.schema import tensor_name
from latentcli.shards.tensors.spool import Spilling

BATCHES_BEHIND = 4
"""Encoded batches that may wait to be packed and written."""


def encode_units(run: EncodeRun, tasks: Iterable[Task]) -> None:
    """read, decode_image, preprocess | batch, encode | write: each overlaps the next."""
    begun: list[EncodedUnit] = []
    first = True
    with (
        ExitStack() as stack,
        open_chunks(
            *(run.intake, tasks, run.workers),
            time_limit=run.job.time_limit or math.inf,
            waiting=run.stop.check,
        ) as chunks,
        BackgroundThread(BATCHES_BEHIND, run.engine.accelerator.use) as writer,
    ):
        stack.callback(drop_spilled, begun)
        stream = timed(chunks, run.meter)
        for chunk in stream:
            unit = new_unit(run, chunk.task.unit)
            begun[:] = [*begun[-BATCHES_BEHIND:], unit]
            for batch in batches(
                pictures(run, unit, to_last(chunk, stream)),
                lambda picture: picture.pixels,
                run.plan.batch_size,
                batch_elements(run.plan.batch_size),
            ):
                run.check()
                if first:
                    run.sink.first(run, batch)
                    first = False
                encode_into(run, unit, batch, writer)
            run.check()
            writer.submit(run.sink.write, run, unit)


def to_last(chunk: Chunk, stream: Iterator[Chunk]) -> Iterator[Chunk]:
    """A unit's chunks, from its first on; a chunk of the next unit is not waited for."""
    yield chunk
    while not chunk.task.last:
        chunk = next(stream)
        yield chunk


def drop_spilled(units: Iterable[EncodedUnit]) -> None:
    """Deletes what units have on the disk that is not in a shard."""
    for unit in units:
        unit.spill.drop()
        for spool in unit.spools:
            spool.drop()


def new_unit(run: EncodeRun, number: int) -> EncodedUnit:
    """An empty unit."""
    prefix = run.reader.unit_prefix(run.inputs, number)
    return EncodedUnit(number, Spilling(run.spilled_to, f"{number:06d}"), prefix=prefix)


def pictures(run: EncodeRun, unit: EncodedUnit, chunks: Iterable[Chunk]) -> Iterator[Picture]:
    """The pictures of a unit; every row, those without a picture too, is noted in it."""
    for chunk in chunks:
        if chunk.task.samples:
            run.team.add(SEEN, len(chunk.task.samples))
        others = {raw.row.key: raw.others for raw in chunk.task.samples or ()}
        for row, pixels in chunk.pictures():
            unit.rows[row.key] = row
            if row.key in others and row.status != FILTERED:
                keep_others(run, unit, row.key, others[row.key])
            if pixels is None:
                count_refused(run, row)
            else:
                yield Picture(row, pixels)


def encode_into(
    run: EncodeRun, unit: EncodedUnit, batch: Sequence[Picture], writer: BackgroundThread
) -> None:
    """encode; copying back and packing wait in the writer, so that the device goes on."""
    accelerator = run.engine.accelerator
    # Before the timer begins: that is the host's work, and the device may be idle meanwhile.
    pixels = accelerator.pinned(torch.stack([picture.pixels for picture in batch]))
    rows = [picture.row for picture in batch]
    timer = DeviceTimer(accelerator)
    parts = None
    with suppress(torch.OutOfMemoryError), timer:
        parts = encode_fitting(run, pixels, [row.key for row in rows])
    if parts is not None:
        writer.submit(collect, run, unit, rows, parts, timer)
        return
    if len(batch) > 1:  # only those fail that do not fit alone
        for picture in batch:
            encode_into(run, unit, [picture], writer)
        return
    height, width = pixels.shape[-2:]
    reason = too_large("picture", width, height)
    unit.rows[rows[0].key] = replace(rows[0], status="failed", stage="encode", error=reason)
    fail(run, unit.rows[rows[0].key])


def encode_fitting(run: EncodeRun, pixels: Tensor, keys: Sequence[str]) -> dict[str, Tensor]:
    """`encode_on_device` as the job stores it, in as few pieces as the device's memory allows.

    torch.OutOfMemoryError where not even one picture fits.
    """
    encode = partial(
        encode_on_device,
        run.engine,
        state=run.plan.state,
        sample=run.job.sample,
        class_token=run.job.class_token,
        flip=run.job.flip == "both",
        store_dtype=run.plan.store_dtype,
    )
    return run.split_on_oom.encode(encode, pixels, keys)


def collect(
    run: EncodeRun,
    unit: EncodedUnit,
    rows: Sequence[Row],
    parts: dict[str, Tensor],
    timer: DeviceTimer,
) -> None:
    """Packs a batch into its unit; a latent that is not finite fails its row."""
    packed = pack_stored([row.key for row in rows], parts)
    run.meter.add("encode", timer.seconds(), len(rows))
    with run.meter.stage("write", len(rows)):
        unit.tensors |= {name: unit.spill.tensor(t) for name, t in packed.tensors.items()}
        names = stored_names(part_of(next(iter(parts))), run.plan.store_dtype)
        for row in rows:
            if row.key in packed.bad:
                reason = packed.bad[row.key]
                unit.rows[row.key] = replace(row, status="failed", stage="encode", error=reason)
                fail(run, unit.rows[row.key])
                continue
            tensors = {name: packed.tensors[tensor_name(row.key, name)] for name in names}
            (latent,) = held(tensors).values()
            unit.sums.add(latent[None])
            unit.rows[row.key] = replace(row, latent_shape=tuple(latent.shape))
    run.meter.advance(len(rows) - len(packed.bad))
    run.sink.advance(run, unit)
