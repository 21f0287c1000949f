"""Reads the frames of video files, prepared as pictures are, ahead of who takes them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction

from torch import Tensor

from latentcli.core.errors import SampleError
from latentcli.core.types import Member, Row
from latentcli.images.clips import Clip, ClipInfo, Frame, open_clip
from latentcli.images.preprocess import PreparedPixels, PreprocessSpec, preprocess
from latentcli.images.size_filter import NO_FILTER, SizeFilter
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
    sizes: SizeFilter = NO_FILTER
    """Clips with frames of other sizes are refused; that is no failure."""


@dataclass(frozen=True, slots=True)
class ClipInput:
    """One clip that is to be read."""

    row: Row
    path: str | None
    """Of its file, there until the next clip is asked for; None where its source refused it."""
    others: tuple[Member, ...] = ()
    """What else its sample in a packed input holds."""


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


@dataclass(frozen=True, slots=True)
class UnitBegins:
    """The clips of a unit follow."""

    unit: int


@dataclass(frozen=True, slots=True)
class ClipBegins:
    """The frames of a clip follow, up to its ClipEnds."""

    given: ClipInput
    info: ClipInfo | None
    """None where it cannot be opened, or its source refused it."""


@dataclass(frozen=True, slots=True)
class ClipEnds:
    """All of a clip's frames are out."""

    clock: Sequence[int] = ()
    """As `clock_of`."""
    error: SampleError | None = None
    """Why there are no more frames, where the clip is damaged or cannot be opened."""
    notes: tuple[str, ...] = ()
    """What is known of the clip only now."""


@dataclass(frozen=True, slots=True)
class UnitEnds:
    """All clips of a unit are out."""


ClipEvent = UnitBegins | ClipBegins | ClipFrame | ClipEnds | UnitEnds


@contextmanager
def open_clips(
    groups: Iterable[tuple[int, Iterable[ClipInput]]],
    recipe: ClipRecipe,
    meter: Meter,
    waiting: Callable[[], None],
) -> Iterator[Iterator[ClipEvent]]:
    """The clips of some units, frame after frame, decoded by a thread ahead of who takes them.

    The next clip is opened while the last frames of this one wait. A group is a unit's number and
    its clips. `waiting` is called while the next frame is not there yet, and may raise.
    """
    events = clip_events(groups, recipe, meter)
    with prefetch(events, AHEAD, waiting, size_of=size_of, most_bytes=3 * AHEAD_PIXELS) as ready:
        yield ready


def clip_events(
    groups: Iterable[tuple[int, Iterable[ClipInput]]], recipe: ClipRecipe, meter: Meter
) -> Iterator[ClipEvent]:
    """What `open_clips` gives."""
    for unit, clips in groups:
        yield UnitBegins(unit)
        for given in clips:
            yield from events_of(given, recipe, meter)
        yield UnitEnds()


def events_of(given: ClipInput, recipe: ClipRecipe, meter: Meter) -> Iterator[ClipEvent]:
    """One clip; what cannot be read of it is told at its end."""
    info, ends = None, ClipEnds()
    try:
        if given.path is not None:
            with opened(given.path, recipe) as clip:
                info = clip.info
                yield ClipBegins(given, info)
                yield from prepared(clip, recipe.preprocess, meter)
                clock = clock_of(info.frame_rate / recipe.stride, info.time_base)
                ends = ClipEnds(clock, notes=clip.late_notes)
    except SampleError as error:
        ends = ClipEnds(error=error)
    if info is None:
        yield ClipBegins(given, None)
    yield ends


def size_of(event: ClipEvent) -> int:
    """Bytes of what waits."""
    return event.pixels.numel() if isinstance(event, ClipFrame) else 0


@contextmanager
def opened(path: str, recipe: ClipRecipe) -> Iterator[Clip]:
    """Opens a clip; SampleError, here or between frames, where it cannot be read to its end.

    Filtered where the recipe does not want it.
    """
    most, stride, limit = recipe.max_pixels, recipe.stride, recipe.frames
    with open_clip(path, max_pixels=most, stride=stride, limit=limit) as clip:
        recipe.sizes.check(clip.info.size)
        yield clip


@contextmanager
def open_frames(
    source: str, recipe: ClipRecipe, meter: Meter, waiting: Callable[[], None] | None = None
) -> Iterator[OpenedClip]:
    """Opens one clip; its frames are decoded by a thread ahead of who takes them.

    `waiting` is called while the next frame is not there yet. SampleError as `opened`.
    """
    with (
        opened(source, recipe) as clip,
        prefetch(
            prepared(clip, recipe.preprocess, meter),
            *(AHEAD, waiting),
            size_of=size_of,
            most_bytes=3 * AHEAD_PIXELS,
        ) as frames,
    ):
        yield OpenedClip(clip.info, frames)


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
        notes=row.notes + info.notes,
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
