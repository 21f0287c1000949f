"""Units of clips in, committed shards out: the stream of the encode job for video."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from tempfile import NamedTemporaryFile

import torch

from latentcli.core.errors import SampleError
from latentcli.core.types import Member, Row
from latentcli.jobs.encode.failures import SEEN, fail
from latentcli.jobs.encode.run import EncodeRun
from latentcli.jobs.encode.stream import encode_fitting, keep_others, new_unit
from latentcli.jobs.encode.unit import EncodedUnit
from latentcli.jobs.inference.batch_size import batch_elements
from latentcli.jobs.loader.batches import batches
from latentcli.jobs.loader.clip_frames import (
    ClipFrame,
    all_counted,
    clip_row,
    clock_of,
    count_frames,
    expected_frames,
    frame_key,
    open_frames,
    pixels_of,
)
from latentcli.jobs.loader.tar_stream import Digesting, open_tar
from latentcli.jobs.loader.tar_tasks import timed
from latentcli.latents.pack import not_finite, stored
from latentcli.latents.schema import tensor_name
from latentcli.latents.stats import ChannelSums
from latentcli.shards.store.commit import TarOrigin
from latentcli.shards.tensors.spool import Spool, Spooled


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


@dataclass(frozen=True, slots=True)
class ClipInput:
    """One clip that is to be encoded."""

    row: Row
    path: str | None
    """Of its file, there until the next clip is asked for; None where its tar refused it."""
    others: tuple[Member, ...] = ()
    """What else its sample in a tar holds."""


def encode_clips(run: EncodeRun, groups: Iterable[tuple[int, Iterable[ClipInput]]]) -> None:
    """Clip after clip: its frames are decoded ahead, encoded in batches, and spooled to the disk.

    A group is a unit and its clips. So memory does not grow with the length of a clip, nor with the
    clips of a unit.
    """
    clips = len(run.inputs) if run.tars is None else None
    number = 0
    for index, inputs in groups:
        unit = new_unit(run, index)
        spooled: list[Spooled] = []
        try:
            for clip in inputs:
                encode_clip(run, unit, clip, spooled, (number, clips))
                number += 1
            run.stop.check()
            run.sink(run, unit)
        finally:
            for tensor in spooled:
                tensor.drop()
            unit.spill.drop()
    all_counted(run.meter)


def clip_inputs(run: EncodeRun, index: int) -> Iterator[ClipInput]:
    """The clips of a unit of the input list: files, or what a tar holds."""
    if run.tars is None:
        yield from (ClipInput(Row(r.key, r.source, "ok"), r.source) for r in run.inputs.rows(index))
        return
    (tar,) = run.inputs.rows(index)
    with open_tar(tar.source, run.tars.check) as stream:
        digesting = Digesting(stream)
        for raw in timed(run.tars.samples(tar, digesting), run.meter):
            if raw.data is None:
                yield ClipInput(raw.row, None)
                continue
            suffix = PurePosixPath(raw.row.source).suffix
            # PyAV reads a file at its ease, forwards and backwards.
            with NamedTemporaryFile(prefix="latentcli-", suffix=suffix) as file:
                file.write(raw.data)
                file.flush()
                yield ClipInput(raw.row, file.name, raw.others)
        run.tars.origins[index] = TarOrigin(tar.source, digesting.digest_of_all())


def encode_clip(
    run: EncodeRun,
    unit: EncodedUnit,
    given: ClipInput,
    spooled: list[Spooled],
    progress: tuple[int, int | None],
) -> None:
    """Adds a clip to its unit, or its row of failure; `progress` is (clips before, clips)."""
    row = given.row
    run.team.add(SEEN, 1)
    if given.path is None:
        unit.rows[row.key] = row
        fail(run, row)
        return
    recipe = run.plan.clips
    assert recipe is not None
    clip = EncodedClip(row, f"{unit.number:06d}-{len(unit.rows)}")
    try:
        with open_frames(given.path, recipe, run.meter, run.stop.check) as opened:
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
        unit.rows[row.key] = replace(
            clip.row, status="failed", stage=error.stage, error=error.reason
        )
        fail(run, unit.rows[row.key])
        return
    except BaseException:
        drop(clip)
        raise
    keep(unit, clip, clock, spooled)
    keep_others(run, unit, row.key, given.others)


def encode_frames(run: EncodeRun, clip: EncodedClip, batch: Sequence[ClipFrame]) -> None:
    """encode, and write to the spools; SampleError where the latents are not finite."""
    key, first = clip.row.key, len(clip.times)
    pixels = torch.stack([frame.pixels for frame in batch])
    keys = [frame_key(key, first + i) for i in range(len(batch))]
    try:
        with run.meter.stage("encode", len(batch)):
            parts = {name: part.cpu() for name, part in encode_fitting(run, pixels, keys).items()}
    except torch.OutOfMemoryError as error:
        height, width = pixels.shape[-2:]
        reason = f"the device ran out of memory on a frame of {width}x{height}"
        raise SampleError("encode", reason) from error
    with run.meter.stage("write", len(batch)):
        for part, values in parts.items():
            rows = stored(part, values)
            if bad := [i for i, count in enumerate(not_finite(rows)) if count]:
                raise SampleError(
                    "encode", f"the {part} of frame {first + bad[0]} is not finite in {rows.dtype}"
                )
            if part not in clip.spools:
                clip.spools[part] = Spool(run.spilled_to, f"{clip.name}-{part}")
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
