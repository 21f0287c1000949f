"""Decodes the latents of clips into video files or folders of numbered pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from latentcli.core.errors import SampleError
from latentcli.images.clip_writer import ClipWriter
from latentcli.jobs.decode.decoded import Decoded
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
from latentcli.jobs.decode.pictures import decode_fitting, noise_ahead
from latentcli.jobs.inference.batch_size import latent_values
from latentcli.jobs.inference.noise import Noise
from latentcli.jobs.loader.clip_frames import frame_key
from latentcli.jobs.loader.lookahead import lookahead
from latentcli.jobs.runtime.background_thread import BackgroundThread
from latentcli.shards.storage.atomic_write import write_error

LATE_START = 10
"""Seconds; a clip that begins later than this on its own clock, as a recorded broadcast does, is
written to begin at 0."""


def decode_clips(run: DecodeRun) -> None:
    """Clip after clip, chunk after chunk: no more than two of them are in memory."""
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


@dataclass(frozen=True, slots=True)
class Chunk:
    """Frames of a clip that are decoded together."""

    indices: range
    keys: Sequence[str]
    noise: Noise | None


def chunks(run: DecodeRun, clip: LatentClip) -> Iterator[Chunk]:
    """All frames of a clip; the last chunk has those that are left."""
    step, length = chunk_frames(run, clip), clip.shape[0]
    for start in range(0, length, step):
        indices = range(start, min(start + step, length))
        keys = [frame_key(clip.key, index) for index in indices]
        yield Chunk(indices, keys, noise_ahead(run, keys, clip.shape))


def decoded_chunks(run: DecodeRun, clip: LatentClip) -> Iterator[tuple[range, Decoded]]:
    """(numbers of the frames, their pictures); SampleError for unsound latents."""
    for chunk in lookahead(chunks(run, clip), int(run.engine.accelerator.gpu)):
        run.stop.check()
        start, stop = chunk.indices.start, chunk.indices.stop
        with run.meter.stage("read", stop - start):
            latents = clip.read(start, stop)
        run.meter.begin()
        if (reason := unsound(latents, run.engine)) is not None:
            raise SampleError("decode", f"{reason} (frames {start} to {stop - 1})")
        decoded = decode_fitting(run, latents, chunk.keys, chunk.noise, frames=True)
        yield chunk.indices, decoded
        run.meter.advance(stop - start)


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
    quality = run.job.quality

    def add(indices: range, decoded: Decoded) -> None:
        pixels = decoded.pictures()
        with run.meter.stage("encode_image", len(indices)):
            for index, picture in zip(indices, pixels, strict=True):
                writer.add(picture, clock.times[index] - begin)

    try:
        with (
            ClipWriter(path, size, clock.frame_rate, clock.time_base, quality) as writer,
            BackgroundThread(1) as behind,
        ):
            for indices, decoded in decoded_chunks(run, clip):
                behind.submit(add, indices, decoded)
    except OSError as error:
        raise write_error(path, error) from error


def write_frames(run: DecodeRun, clip: LatentClip) -> None:
    """A folder of pictures named by the frame's number, from 000000 on."""
    behind = run.path(frame_key(clip.key, clip.shape[0]))
    if behind.exists():
        raise SampleError(
            "write",
            f"{behind} is there, with a number after the clip's last frame; move the old frames"
            " away, or choose another -o",
        )
    with writing(run) as submit:
        for _, decoded in decoded_chunks(run, clip):
            for index, key in enumerate(decoded.keys):
                submit(save_picture, run, key, decoded, index)
