"""Gives decoded frames increasing times, finds gaps in them, and turns their pixels upright."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from av.video.frame import VideoFrame


class Clock:
    """Gives every frame a time, later than the one before, where the file's are not so."""

    def __init__(self, frame_rate: Fraction, time_base: Fraction, by_dts: bool) -> None:
        self._ticks = 1 / (frame_rate * time_base)
        # An AVI begins at 0 and has only the times of decoding, which run ahead of the showing.
        self._by_dts = by_dts
        self._shift = 0
        self._time = -1
        self._known = (0, 0)
        self._index = -1

    def read(self, frame: VideoFrame) -> int:
        """The time of the next frame; each frame is read once, in order."""
        self._index += 1
        stated = frame.dts if self._by_dts else frame.pts
        if stated is None:
            index, time = self._known
            time += round((self._index - index) * self._ticks)
        else:
            if self._index == 0:
                self._shift = -stated if self._by_dts or stated < 0 else 0
            time = stated + self._shift
            self._known = (self._index, time)
        self._time = max(time, self._time + 1)
        return self._time


_MOST_STEPS = 1000
"""Different steps between frames that are counted: where there are more, the rate varies."""
_EVEN = 0.8
"""Share of the steps that must be alike for others to be gaps."""
_NEAR, _FAR = 1.1, 1.5
"""Longer than the usual step by this factor, a step is still alike, or a gap."""


class Steps:
    """How far apart the frames of a clip are, and where one is much further from the next."""

    def __init__(self) -> None:
        self._last: int | None = None
        self._counts: Counter[int] = Counter()
        self._longest = (0, 0)

    def add(self, time: int) -> None:
        """The time of the next frame, in ticks; later than the one before."""
        if self._last is not None and len(self._counts) < _MOST_STEPS:
            step = time - self._last
            self._counts[step] += 1
            self._longest = max(self._longest, (step, -time))
        self._last = time

    def note(self, time_base: Fraction) -> str:
        """Where frames seem to be missing; empty where they are evenly spaced, or never were.

        That a camera stood still for a moment looks the same.
        """
        counts = self._counts
        steps = np.repeat(list(counts), list(counts.values()))
        if not len(steps) or len(counts) >= _MOST_STEPS:
            return ""
        usual = float(np.median(steps))
        alike = (steps <= _NEAR * usual) & (_NEAR * steps >= usual)
        longest, end = self._longest[0], -self._longest[1]
        if alike.mean() < _EVEN or longest < _FAR * usual:
            return ""
        before, after, step = (t * float(time_base) for t in (end - longest, end, usual))
        return (
            f"gap in time: frames at {before:.2f} s and {after:.2f} s follow each other, others are"
            f" {step:.2g} s apart; some may be missing"
        )


@dataclass(frozen=True, slots=True)
class Turn:
    """A turn by quarters, and a mirroring, that make frames upright: transpose, then flip."""

    swaps: bool
    flips: tuple[int, ...]
    """Axes of [H, W, 3]."""
    note: str
    """Empty where there is nothing to do."""

    @classmethod
    def of(cls, frame: VideoFrame) -> Self:
        """The display matrix (a b u; c d v; x y w) takes (x, y) to (a x + c y, b x + d y)."""
        data: Any = frame.side_data.get("DISPLAYMATRIX")
        if data is None:
            return cls(False, (), "")
        order = "<i4" if sys.byteorder == "little" else ">i4"
        a, b, _, c, d = np.frombuffer(bytes(data), order)[:5].tolist()
        if (a or d) and (b or c):
            return cls(False, (), f"rotation by {frame.rotation} degrees not applied")
        right, down = (c, b) if b else (a, d)
        flips = tuple(axis for axis, sign in ((0, down), (1, right)) if sign < 0)
        return cls(bool(b), flips, "rotation applied" if b or flips else "")

    def apply(self, pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """uint8 [H, W, 3] as stored to the same, contiguous, as shown."""
        if self.swaps:
            pixels = pixels.swapaxes(0, 1)
        return np.ascontiguousarray(np.flip(pixels, self.flips) if self.flips else pixels)
