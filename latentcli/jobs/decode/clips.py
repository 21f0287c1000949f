"""Decodes the latents of clips into video files or folders of numbered pictures."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from latentcli.core.errors import SampleError
from latentcli.images.clip_writer import ClipWriter
from latentcli.jobs.decode.latents import LatentClip
from latentcli.jobs.decode.output import (
    DecodeRun,
    check_safe,
    make_parent,
    misshapen,
    save_picture,
    unsound,
    writing,
)
from latentcli.jobs.decode.pictures import decode_fitting
from latentcli.jobs.inference.batch_size import latent_values
from latentcli.jobs.loader.clip_frames import frame_key
from latentcli.shards.storage.atomic_write import write_error

LATE_START = 10
"""Seconds; a clip that begins later than this on its own clock, as a recorded broadcast does, is
written to begin at 0."""


def decode_clips(run: DecodeRun) -> None:
    """Clip after clip, chunk after chunk: no more than a chunk of frames is in memory."""
    assert run.source.clips is not None
    for clip in run.source.clips(run.units()):
        run.stop.check()
        run.failures.seen += 1
        target = clip.key if run.format == "mp4" else frame_key(clip.key, 0)
        done = run.meter.done
        try:
            if clip.problem is not None:
                raise SampleError("read", clip.problem)
            if (reason := misshapen(clip.shape)) is not None:
                raise SampleError("read", reason)
            check_safe(run, target, clip.source)
            if run.job.skip_existing and is_written(run, clip):
                run.skipped.append(clip.key)
                run.meter.advance(clip.shape[0])
                continue
            (write_video if run.format == "mp4" else write_frames)(run, clip)
            run.lengths.append(clip.shape[0])
        except SampleError as error:
            run.meter.advance(clip.shape[0] - (run.meter.done - done), 1)
            run.fail(clip.key, error, clip.unit if error.stage == "read" else None)


def is_written(run: DecodeRun, clip: LatentClip) -> bool:
    """Whether the clip's file, or every one of its frames, is there."""
    if run.format == "mp4":
        return run.path(clip.key).exists()
    frames = range(clip.shape[0])
    return all(run.path(frame_key(clip.key, index)).exists() for index in frames)


def chunks(run: DecodeRun, clip: LatentClip) -> Iterator[tuple[int, Tensor]]:
    """(number of the first frame, uint8 pictures [n, 3, H, W]); SampleError for unsound latents.

    The last chunk of a clip has the frames that are left.
    """
    step = chunk_frames(run, clip)
    for start in range(0, clip.shape[0], step):
        run.stop.check()
        stop = min(start + step, clip.shape[0])
        with run.meter.stage("read", stop - start):
            latents = clip.read(start, stop)
        run.meter.begin()
        if (reason := unsound(latents, run.engine)) is not None:
            raise SampleError("decode", f"{reason} (frames {start} to {stop - 1})")
        keys = [frame_key(clip.key, index) for index in range(start, stop)]
        yield start, decode_fitting(run, latents, keys, frames=True)


def chunk_frames(run: DecodeRun, clip: LatentClip) -> int:
    """Frames that are decoded at once: those that see each other, or a batch."""
    model = run.engine.model
    if model.is_video:
        return run.job.num_frames or model.frames_per_chunk
    batch = run.job.batch_size or run.engine.accelerator.batch_size
    _, channels, h, w = clip.shape
    return max(1, min(batch, batch * latent_values(run.engine) // (channels * h * w)))


def write_video(run: DecodeRun, clip: LatentClip) -> None:
    """One MP4 file with the times of the clip's frames."""
    f = run.engine.model.spec.downscale
    size = (clip.shape[3] * f, clip.shape[2] * f)
    clock, path = clip.clock(), run.path(clip.key)
    begin = clock.times[0] if clock.times[0] * clock.time_base > LATE_START else 0
    make_parent(path, run.output)
    try:
        with ClipWriter(path, size, clock.frame_rate, clock.time_base, run.job.quality) as writer:
            for start, pixels in chunks(run, clip):
                with run.meter.stage("encode_image", len(pixels)):
                    for index, picture in enumerate(pixels, start):
                        writer.add(picture, clock.times[index] - begin)
                run.meter.advance(len(pixels))
    except OSError as error:
        raise write_error(path, error) from error


def write_frames(run: DecodeRun, clip: LatentClip) -> None:
    """A folder of pictures named by the frame's number, from 000000 on."""
    behind = run.path(frame_key(clip.key, clip.shape[0]))
    if behind.exists():
        raise SampleError(
            "write",
            f"{behind} is there, a frame behind the clip's last; move the old frames away, or"
            " choose another -o",
        )
    with writing(run) as submit:
        for start, pixels in chunks(run, clip):
            for index, picture in enumerate(pixels, start):
                submit(save_picture, run, frame_key(clip.key, index), picture)
            run.meter.advance(len(pixels))
