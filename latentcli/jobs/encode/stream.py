"""Encodes pictures: the stream of the encode job, from bytes to the disk."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from latentcli.core.pickled import changed
from latentcli.core.store_dtype import arrived
from latentcli.core.types import FILTERED, Picture, Row
from latentcli.jobs.encode.failures import SEEN, count_refused, fail
from latentcli.jobs.encode.run import EncodeRun
from latentcli.jobs.encode.texts import keep_others
from latentcli.jobs.encode.unit import EncodedUnit
from latentcli.jobs.encode.way_out import WayOut, open_way_out
from latentcli.jobs.inference.accelerator import Accelerator, DeviceTimer
from latentcli.jobs.inference.batch_size import batch_elements
from latentcli.jobs.inference.encode_batch import encode_on_device
from latentcli.jobs.inference.jpeg_decoder import outline, shape_of
from latentcli.jobs.inference.split_on_oom import Parts, too_large
from latentcli.jobs.loader.batches import batches
from latentcli.jobs.loader.loader import open_chunks, timed
from latentcli.jobs.loader.pixel_ring import Ring, open_ring, ring_size
from latentcli.jobs.loader.prepare import Chunk, Task
from latentcli.latents.pack import not_finite
from latentcli.latents.schema import tensor_name
from latentcli.shards.tensors.spool import Spilling


def encode_units(run: EncodeRun, tasks: Iterable[Task]) -> None:
    """read, decode_image, preprocess | batch, encode | write: each overlaps the next."""
    first = True
    size = ring_size(run.plan.recipe.preprocess, run.workers, run.plan.batch_size)
    with (
        open_ring(size, run.engine.accelerator.pin_in_place) as ring,
        open_chunks(
            *(run.intake, tasks, run.workers),
            time_limit=run.job.time_limit or math.inf,
            waiting=run.stop.check,
            ring=ring,
        ) as chunks,
        open_way_out(run) as out,
    ):
        stream = timed(chunks, run.meter)
        for chunk in stream:
            unit = out.begin(new_unit(run, chunk.task.unit))
            for batch in batches(
                pictures(run, unit, to_last(chunk, stream)),
                lambda picture: outline(picture.row, picture.pixels),
                run.plan.batch_size,
                batch_elements(run.plan.batch_size),
            ):
                out.check()
                if first:
                    run.sink.first(run, batch)
                    first = False
                encode_into(out, unit, batch, ring)
            out.check()
            out.end(unit)
    if run.jpegs is not None:
        run.jpegs.tell_left(run.reporter.note)


def to_last(chunk: Chunk, stream: Iterator[Chunk]) -> Iterator[Chunk]:
    """A unit's chunks, from its first on; a chunk of the next unit is not waited for."""
    yield chunk
    while not chunk.task.last:
        chunk = next(stream)
        yield chunk


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
    out: WayOut, unit: EncodedUnit, batch: Sequence[Picture], ring: Ring | None
) -> None:
    """encode; waiting for what comes back, and packing, are the packer's, so that the device goes
    on.
    """
    run = out.run
    accelerator = run.engine.accelerator
    # Before the timer begins: that is the host's work, and the device may be idle meanwhile.
    pictures = [picture.pixels for picture in batch]
    rows = [picture.row for picture in batch]
    files = any(picture.ndim == 1 for picture in pictures)
    pixels = None if files else together(accelerator, pictures, ring)
    timer = DeviceTimer(accelerator)
    parts, problem = None, ""
    try:
        with timer:
            if pixels is None and run.jpegs is not None:
                pixels = run.jpegs.pixels(rows, pictures)
            assert pixels is not None
            parts = encode_fitting(run, pixels, [row.key for row in rows])
    except torch.OutOfMemoryError as error:  # which holds on to what its frames had allocated
        _, height, width = shape_of(rows[0], pictures[0])
        problem = too_large(error, "picture", width, height, room=run.split_on_oom.room)
    if ring is not None and (parts is not None or len(batch) == 1):
        ring.release(pictures, timer.is_over)
    if parts is not None:
        out.packer.submit(collect, out, unit, rows, out.copies.begin(parts), timer)
        return
    if len(batch) > 1:  # only those fail that do not fit alone
        for picture in batch:
            encode_into(out, unit, [picture], ring)
        return
    unit.rows[rows[0].key] = replace(rows[0], status="failed", stage="encode", error=problem)
    fail(run, unit.rows[rows[0].key])


def together(accelerator: Accelerator, pictures: Sequence[Tensor], ring: Ring | None) -> Tensor:
    """Pictures [3, H, W] as one tensor [N, 3, H, W] from which the device copies by itself.

    They are not touched where they lie so already.
    """
    batch = None if ring is None else ring.batch(pictures)
    return accelerator.stacked(pictures) if batch is None else accelerator.pinned(batch)


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
    out: WayOut,
    unit: EncodedUnit,
    rows: Sequence[Row],
    parts: Callable[[], Parts],
    timer: DeviceTimer,
) -> None:
    """Packs a batch into its unit; a latent that is not finite fails its row.

    `parts` waits for what `as_stored` gave, and has it on the CPU.
    """
    run, batch = out.run, arrived(parts())
    run.meter.add("encode", timer.seconds(), len(rows))
    bad = not_finite([row.key for row in rows], batch)
    packed = {name: unit.spill.rows(tensor) for name, tensor in batch.tensors.items()}
    latent_shape = tuple(batch.latents.shape[1:])
    sound = [i for i, row in enumerate(rows) if row.key not in bad]
    for i in sound:
        row = rows[i]
        for name, tensors in packed.items():
            unit.tensors[tensor_name(row.key, name)] = tensors[i]
        unit.rows[row.key] = changed(row, "latent_shape", latent_shape)
    unit.sums.add_moments(math.prod(latent_shape[1:]), batch.means[sound], batch.squares[sound])
    # The time of this stage is the writer's: packing has a thread of its own, and is over soon.
    run.meter.add("write", 0.0, len(rows))
    for row in rows:
        if row.key in bad:
            reason = bad[row.key]
            unit.rows[row.key] = replace(row, status="failed", stage="encode", error=reason)
            fail(run, unit.rows[row.key])
    run.meter.advance(len(sound))
    run.sink.advance(run, unit, out.writer)
