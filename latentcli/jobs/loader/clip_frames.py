"""A video file in; its frames, prepared as pictures are, one after the other out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction

from torch import Tensor

from latentcli.core.errors import SampleError
from latentcli.core.types import Row
from latentcli.images.clips import ClipInfo, Frame, open_clip
from latentcli.images.preprocess import PreparedPixels, PreprocessSpec, preprocess
from latentcli.jobs.loader.prefetch import prefetch
from latentcli.jobs.runtime.meter import Meter

AHEAD = 16
"""Frames that are prepared ahead of the model, unless they are large."""
AHEAD_PIXELS = 2**24
"""Pixels of the frames that wait: of 3840x2160, two frames."""


@dataclass(frozen=True, slots=True)
class ClipRecipe:
    """What is done to each clip."""

    max_pixels: int
    """Of a frame."""
    preprocess: PreprocessSpec
    stride: int = 1
    """Every so many frames are taken."""
    frames: int | None = None
    """At most so many are taken; None is all."""


@dataclass(frozen=True, slots=True)
class ClipFrame:
    """One frame, ready for a batch."""

    prepared: PreparedPixels
    time: int
    """When it is shown, in ticks of the clip's time base."""

    @property
    def pixels(self) -> Tensor:
        """uint8 [3, H, W], sRGB."""
        return self.prepared.pixels


@dataclass(frozen=True, slots=True)
class Clock:
    """When the frames of a clip are shown."""

    times: list[int]
    """Of each frame, in ticks of the time base."""
    frame_rate: Fraction
    time_base: Fraction
    """Seconds per tick."""


@dataclass(frozen=True, slots=True)
class OpenedClip:
    """A clip whose frames are being read."""

    info: ClipInfo
    frames: Iterator[ClipFrame]
    """In the order in which they are shown."""


@contextmanager
def open_frames(
    source: str, recipe: ClipRecipe, meter: Meter, waiting: Callable[[], None] | None = None
) -> Iterator[OpenedClip]:
    """Opens a clip; its frames are decoded by a thread ahead of who takes them.

    `waiting` is called while the next frame is not there yet. SampleError, here or between frames,
    where the clip cannot be read to its end.
    """
    with (
        open_clip(
            source, max_pixels=recipe.max_pixels, stride=recipe.stride, limit=recipe.frames
        ) as clip,
        prefetch(
            prepared(clip, recipe.preprocess, meter),
            ahead(clip.info.size, recipe.preprocess),
            waiting,
        ) as frames,
    ):
        yield OpenedClip(clip.info, frames)


def ahead(size: tuple[int, int], spec: PreprocessSpec) -> int:
    """Frames to prepare ahead, of a clip whose frames are of `size`, (W, H)."""
    width, height = spec.size or (spec.buckets.pick(size) if spec.buckets else size)
    return max(2, min(AHEAD, AHEAD_PIXELS // (width * height)))


def prepared(frames: Iterable[Frame], spec: PreprocessSpec, meter: Meter) -> Iterator[ClipFrame]:
    """decode_image and preprocess, timed."""
    stream = iter(frames)
    while True:
        start = time.perf_counter()
        try:
            frame = next(stream, None)
        except SampleError:
            raise
        except Exception as error:  # one strange clip must not end a job of thousands
            reason = f"{type(error).__name__}: {error}"
            raise SampleError("decode_image", reason) from error
        middle = time.perf_counter()
        meter.add("decode_image", middle - start, 0 if frame is None else 1)
        if frame is None:
            return
        ready = preprocess(frame.image, spec)
        meter.add("preprocess", time.perf_counter() - middle, 1)
        yield ClipFrame(ready, frame.time)


def clip_row(row: Row, info: ClipInfo, recipe: ClipRecipe, first: PreparedPixels) -> Row:
    """The row with what is known of the clip once its first frame is there."""
    return replace(
        row,
        original_size=info.size,
        resized_size=first.resized_size,
        crop=first.crop,
        frame_rate=str(info.frame_rate / recipe.stride),
        time_base=str(info.time_base),
        notes=info.notes,
    )


def expected_frames(info: ClipInfo, recipe: ClipRecipe) -> int | None:
    """Frames that will be taken, where the container says how many it has."""
    if info.frames is None:
        return recipe.frames
    taken = -(-info.frames // recipe.stride)
    return taken if recipe.frames is None else min(taken, recipe.frames)


def clock_of(frame_rate: Fraction, time_base: Fraction) -> list[int]:
    """What a shard stores of a clip's clock: both fractions, numerator before denominator."""
    return [*frame_rate.as_integer_ratio(), *time_base.as_integer_ratio()]


def fractions_of(clock: Tensor) -> tuple[Fraction, Fraction]:
    """(frame rate, time base) of a stored clock."""
    rate, rate_per, base, base_per = clock.tolist()
    return Fraction(rate, rate_per), Fraction(base, base_per)


def pixels_of(frame: ClipFrame) -> Tensor:
    """A frame's pixels."""
    return frame.pixels


def frame_key(key: str, index: int) -> str:
    """Name of one frame of a clip: its picture's, and the seed of its noise."""
    return f"{key}/{index:06d}"


def count_frames(meter: Meter, expected: int | None, clip: int, clips: int | None) -> None:
    """Sets the meter's total to a guess: clip number `clip` (from 0) of `clips` begins now."""
    if clips is None:
        return
    mean = meter.done / clip if clip else 0.0
    until = meter.done + (mean if expected is None else expected)
    meter.total = max(round(until * clips / (clip + 1)), meter.done)


def all_counted(meter: Meter) -> None:
    """Ends the guessing: every frame that there was is done; tells a listener that saw a guess."""
    if meter.total != meter.done:
        meter.total = meter.done
        meter.listener(meter.snapshot())
