"""Units of clips in, committed shards out: the stream of the encode job for video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from latentcli.core.errors import SampleError
from latentcli.core.types import InputRow, Row
from latentcli.jobs.batching import batches
from latentcli.jobs.clips import (
    ClipFrame,
    ClipRecipe,
    all_counted,
    clip_row,
    clock_of,
    count_frames,
    expected_frames,
    frame_key,
    open_frames,
    pixels_of,
)
from latentcli.jobs.encode_plan import batch_elements
from latentcli.jobs.encode_stream import EncodedUnit, EncodeRun, fail, out_of_memory, write_unit
from latentcli.jobs.engine import encode_batch
from latentcli.latents.pack import not_finite, stored
from latentcli.latents.schema import tensor_name
from latentcli.latents.stats import ChannelSums
from latentcli.shards.spool import Spool, Spooled


@dataclass(slots=True)
class EncodedClip:
    """One clip's latents while they are collected on the disk."""

    row: Row
    name: str
    """Tells its spools from those of other clips."""
    spools: dict[str, Spool] = field(default_factory=dict)
    """By part."""
    times: list[int] = field(default_factory=list)
    sums: ChannelSums = field(default_factory=ChannelSums)


def encode_clips(run: EncodeRun, todo: Sequence[int]) -> None:
    """Clip after clip: its frames are decoded ahead, encoded in batches, and spooled to the disk.

    So memory does not grow with the length of a clip, nor with the clips of a unit.
    """
    recipe = run.plan.clips
    assert recipe is not None
    clips, number = sum(run.inputs.count(unit) for unit in todo), 0
    for index in todo:
        unit = EncodedUnit(index)
        spooled: list[Spooled] = []
        try:
            for source in run.inputs.rows(index):
                encode_clip(run, unit, recipe, source, spooled, (number, clips))
                number += 1
            run.stop.check()
            write_unit(run, unit)
        finally:
            for tensor in spooled:
                tensor.drop()
    all_counted(run.meter)


def encode_clip(
    run: EncodeRun,
    unit: EncodedUnit,
    recipe: ClipRecipe,
    source: InputRow,
    spooled: list[Spooled],
    progress: tuple[int, int],
) -> None:
    """Adds a clip to its unit, or its row of failure; `progress` is (clips before, clips)."""
    clip = EncodedClip(Row(source.key, source.source, "ok"), f"{unit.number:06d}-{len(unit.rows)}")
    try:
        with open_frames(source.source, recipe, run.meter, run.stop.check) as opened:
            count_frames(run.meter, expected_frames(opened.info, recipe), *progress)
            size = run.plan.batch_size
            for batch in batches(opened.frames, pixels_of, size, batch_elements(size)):
                run.stop.check()
                run.meter.begin()
                if not clip.times:
                    clip.row = clip_row(clip.row, opened.info, recipe, batch[0].prepared)
                encode_frames(run, clip, batch)
            if not clip.times:
                raise SampleError("decode_image", "the clip has no frame")
            clock = clock_of(opened.info.frame_rate / recipe.stride, opened.info.time_base)
    except SampleError as error:
        drop(clip)
        unit.rows[source.key] = replace(
            clip.row, status="failed", stage=error.stage, error=error.reason
        )
        fail(run, unit.rows[source.key])
        return
    except BaseException:
        drop(clip)
        raise
    keep(unit, clip, clock, spooled)


def encode_frames(run: EncodeRun, clip: EncodedClip, batch: Sequence[ClipFrame]) -> None:
    """encode, and write to the spools; SampleError where the latents are not finite."""
    key, first = clip.row.key, len(clip.times)
    pixels = torch.stack([frame.pixels for frame in batch])
    keys = [frame_key(key, first + i) for i in range(len(batch))]
    try:
        with run.meter.stage("encode", len(batch)):
            parts = encode_batch(
                *(run.engine, pixels, keys, run.plan.state, run.job.sample),
                class_token=run.job.class_token,
            )
    except torch.OutOfMemoryError as error:
        raise SampleError("encode", out_of_memory(pixels, error)) from error
    with run.meter.stage("write", len(batch)):
        for part, values in parts.items():
            rows = stored(part, values)
            if bad := [i for i, count in enumerate(not_finite(rows)) if count]:
                raise SampleError(
                    "encode", f"the {part} of frame {first + bad[0]} is not finite in {rows.dtype}"
                )
            if part not in clip.spools:
                clip.spools[part] = Spool(run.plan.store, f"{clip.name}-{part}")
            clip.spools[part].add(rows)
            if part == next(iter(parts)):
                clip.sums.add(rows)
    clip.times += [frame.time for frame in batch]
    run.meter.advance(len(batch))


def keep(unit: EncodedUnit, clip: EncodedClip, clock: list[int], spooled: list[Spooled]) -> None:
    """Takes a finished clip into its unit."""
    key = clip.row.key
    tensors = {part: spool.close() for part, spool in clip.spools.items()}
    spooled += tensors.values()
    unit.tensors |= {tensor_name(key, part): tensor for part, tensor in tensors.items()}
    unit.tensors[tensor_name(key, "times")] = torch.tensor(clip.times, dtype=torch.int64)
    unit.tensors[tensor_name(key, "clock")] = torch.tensor(clock, dtype=torch.int64)
    unit.sums.merge(clip.sums)
    unit.rows[key] = replace(clip.row, latent_shape=next(iter(tensors.values())).shape)


def drop(clip: EncodedClip) -> None:
    """Deletes what a clip that came to nothing has on the disk."""
    for spool in clip.spools.values():
        spool.drop()
