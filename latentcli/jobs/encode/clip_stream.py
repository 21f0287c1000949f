"""Encodes clips frame by frame: the stream of the encode job for video."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch

from latentcli.core.errors import SampleError
from latentcli.core.store_dtype import arrived
from latentcli.core.types import Row
from latentcli.jobs.encode.failures import SEEN, count_refused
from latentcli.jobs.encode.run import EncodeRun
from latentcli.jobs.encode.stream import encode_fitting, new_unit
from latentcli.jobs.encode.texts import keep_others
from latentcli.jobs.encode.unit import EncodedUnit
from latentcli.jobs.encode.way_out import WayOut, open_way_out
from latentcli.jobs.inference.accelerator import DeviceTimer
from latentcli.jobs.inference.batch_size import batch_elements
from latentcli.jobs.inference.split_on_oom import Parts, too_large
from latentcli.jobs.loader.batches import batches
from latentcli.jobs.loader.clip_frames import (
    ClipBegins,
    ClipEnds,
    ClipEvent,
    ClipFrame,
    ClipInput,
    UnitBegins,
    all_counted,
    clip_row,
    count_frames,
    expected_frames,
    frame_key,
    open_clips,
    pixels_of,
)
from latentcli.jobs.loader.prepare import refused
from latentcli.latents.schema import tensor_name
from latentcli.latents.stats import ChannelSums
from latentcli.shards.tensors.spool import Spool


@dataclass(slots=True)
class EncodedClip:
    """One clip's latents while they are collected on the disk."""

    row: Row
    name: str
    """Tells its spools from those of other clips."""
    taken: int = 0
    """Frames that went to the device."""
    over: bool = False
    """Whether no more of it goes to the device, which had no memory for a frame."""
    error: SampleError | None = None
    """Why nothing comes of it: of the first of its frames with which something is wrong. The packer
    alone, which has them in order, says so."""
    spools: dict[str, Spool] = field(default_factory=dict)
    """By name of the tensor; the first one has the latents' shape."""
    times: list[int] = field(default_factory=list)
    sums: ChannelSums = field(default_factory=ChannelSums)


def encode_clips(run: EncodeRun, groups: Iterable[tuple[int, Iterable[ClipInput]]]) -> None:
    """decode_image, preprocess | batch, encode | write: each overlaps the next, clip after clip.

    A group is a unit and its clips. Latents are spooled to the disk, so memory does not grow with
    the length of a clip, nor with the clips of a unit.
    """
    recipe = run.plan.clips
    assert recipe is not None
    clips = None if run.reader.packed else len(run.inputs)
    number = 0
    with (
        open_clips(groups, recipe, run.meter, run.stop.check) as events,
        open_way_out(run) as out,
    ):
        for event in events:
            if isinstance(event, UnitBegins):
                out.begin(new_unit(run, event.unit))
            elif isinstance(event, ClipBegins):
                if event.info is not None:
                    count_frames(run.meter, expected_frames(event.info, recipe), number, clips)
                encode_clip(out, out.begun[-1], event, events, number)
                number += 1
            else:
                out.check()
                out.end(out.begun[-1])
    all_counted(run.meter)


def encode_clip(
    out: WayOut,
    unit: EncodedUnit,
    begins: ClipBegins,
    events: Iterator[ClipEvent],
    number: int,
) -> None:
    """Encodes the frames of one clip, in batches of its own; the packer makes a row of it."""
    run = out.run
    run.team.add(SEEN, 1)
    clip = EncodedClip(begins.given.row, f"{unit.number:06d}-{number}")
    size, ended = run.plan.batch_size, list[ClipEnds]()
    for batch in batches(to_end(events, ended), pixels_of, size, batch_elements(size)):
        out.check()
        run.meter.begin()
        if clip.over or clip.error is not None or (ended and ended[0].error is not None):
            continue
        if not clip.taken:
            assert run.plan.clips is not None and begins.info is not None
            clip.row = clip_row(clip.row, begins.info, run.plan.clips, batch[0].prepared)
        encode_frames(out, unit, clip, batch)
    out.packer.submit(finish_clip, run, unit, clip, begins.given, ended[0])


def to_end(events: Iterator[ClipEvent], ended: list[ClipEnds]) -> Iterator[ClipFrame]:
    """The frames of a clip; its end goes into the list."""
    for event in events:
        if isinstance(event, ClipEnds):
            ended.append(event)
            return
        assert isinstance(event, ClipFrame)
        yield event


def encode_frames(
    out: WayOut, unit: EncodedUnit, clip: EncodedClip, batch: Sequence[ClipFrame]
) -> None:
    """encode; waiting for what comes back, and spooling, are the packer's, so that the device goes
    on.
    """
    run = out.run
    key, first = clip.row.key, clip.taken
    clip.taken += len(batch)
    accelerator = run.engine.accelerator
    pixels = accelerator.stacked([frame.pixels for frame in batch])
    keys = [frame_key(key, first + i) for i in range(len(batch))]
    timer = DeviceTimer(accelerator)
    try:
        with timer:
            parts = encode_fitting(run, pixels, keys)
    except torch.OutOfMemoryError as error:
        height, width = pixels.shape[-2:]
        reason = too_large(error, "frame", width, height, room=run.split_on_oom.room)
        clip.over = True
        out.packer.submit(fail_clip, clip, reason)
        return
    times = [frame.time for frame in batch]
    out.packer.submit(collect_frames, run, unit, clip, times, out.copies.begin(parts), timer)


def fail_clip(clip: EncodedClip, reason: str) -> None:
    """A clip fails at encode, unless it did at an earlier frame."""
    clip.error = clip.error or SampleError("encode", reason)


def collect_frames(
    run: EncodeRun,
    unit: EncodedUnit,
    clip: EncodedClip,
    times: Sequence[int],
    parts: Callable[[], Parts],
    timer: DeviceTimer,
) -> None:
    """write to the spools; a latent that is not finite fails its clip.

    `parts` waits for what `as_stored` gave, and has it on the CPU.
    """
    batch = arrived(parts())  # in any case: the memory it came in is wanted again
    if clip.error is not None:
        return
    run.meter.add("encode", timer.seconds(), len(times))
    with run.meter.stage("write", len(times)):
        for part, counts in batch.unsound.items():
            if bad := [i for i, count in enumerate(counts) if count]:
                at = len(clip.times) + bad[0]
                number = batch.dtype(part)
                fail_clip(clip, f"the {part} of frame {at} is not finite in torch.{number}")
                return
        for name, rows in batch.tensors.items():
            if name not in clip.spools:
                clip.spools[name] = Spool(run.spilled_to, f"{clip.name}-{name}")
                unit.spools.append(clip.spools[name])
            clip.spools[name].add(rows)
        clip.sums.add_moments(batch.latents[0, 0].numel(), batch.means, batch.squares)
    clip.times += times
    run.meter.advance(len(times))


def finish_clip(
    run: EncodeRun, unit: EncodedUnit, clip: EncodedClip, given: ClipInput, ends: ClipEnds
) -> None:
    """Takes a clip into its unit, or its row of failure."""
    error = clip.error or ends.error
    if error is None and given.path is not None and not clip.times:
        error = SampleError("decode_image", "the clip has no frame")
    key = clip.row.key
    if error is None and given.path is not None:
        clip.row = replace(clip.row, notes=clip.row.notes + ends.notes)
        keep(unit, clip, ends.clock)
        keep_others(run, unit, key, given.others)
        return
    for spool in clip.spools.values():
        spool.drop()
    row = clip.row
    if error is not None:
        row = refused(row, error)
    unit.rows[key] = row
    count_refused(run, row)


def keep(unit: EncodedUnit, clip: EncodedClip, clock: Sequence[int]) -> None:
    """Takes the latents of a whole clip into its unit."""
    key = clip.row.key
    tensors = {part: spool.close() for part, spool in clip.spools.items()}
    unit.tensors |= {tensor_name(key, part): tensor for part, tensor in tensors.items()}
    unit.tensors[tensor_name(key, "times")] = torch.tensor(clip.times, dtype=torch.int64)
    unit.tensors[tensor_name(key, "clock")] = torch.tensor(clock, dtype=torch.int64)
    unit.sums.merge(clip.sums)
    unit.rows[key] = replace(clip.row, latent_shape=next(iter(tensors.values())).shape)
