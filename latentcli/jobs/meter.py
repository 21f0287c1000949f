"""Seconds and items per stage of a job, in, and who is the bottleneck, out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

IMAGE_STAGES = ("read", "decode_image", "preprocess")


@dataclass(slots=True)
class StageTime:
    """What one stage has done so far."""

    seconds: float = 0.0
    items: int = 0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of a job for whoever shows it."""

    verb: str
    """encode, decode or roundtrip."""
    done: int
    total: int
    failed: int
    elapsed: float
    """Seconds since the first item was asked for."""
    rate: float
    """Items a second since the first batch came."""
    shares: dict[str, float]
    """Stage to its share of the busiest stage, in [0, 1]."""
    noun: str = "images"
    """What is counted."""

    @property
    def eta(self) -> float | None:
        """Seconds to go, or None before there is a rate."""
        return (self.total - self.done) / self.rate if self.rate > 0 else None


Listener = Callable[[Snapshot], None]


def ignore(_: Snapshot) -> None:
    """The listener of a job that nobody watches."""


@dataclass(slots=True)
class Meter:
    """Collects stage times from any thread; image stages run in `workers` processes at once."""

    verb: str
    total: int
    listener: Listener = ignore
    workers: int = 1
    noun: str = "images"
    """What is counted: images, frames or cases."""
    stages: dict[str, StageTime] = field(default_factory=dict)
    done: int = 0
    failed: int = 0
    waited: float = 0.0
    """Seconds that the model sat idle for want of a batch."""
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _start: float = field(default_factory=time.perf_counter)
    _first: float | None = None
    _done_before: int = 0
    _last: float | None = None

    def add(self, stage: str, seconds: float, items: int) -> None:
        """Time spent in a stage, as measured by whoever ran it."""
        with self._lock:
            entry = self.stages.setdefault(stage, StageTime())
            entry.seconds += seconds
            entry.items += items

    @contextmanager
    def stage(self, name: str, items: int) -> Iterator[None]:
        """Times a block of this process as `items` of a stage."""
        start = time.perf_counter()
        yield
        self.add(name, time.perf_counter() - start, items)

    def begin(self, *, again: bool = False) -> None:
        """The first items are here: from now on the rate counts, start-up time does not.

        Only the first call counts, unless `again` moves the start: workers start one by one.
        """
        if self._first is None or again:
            self._first = time.perf_counter()
            self._done_before = self.done

    def advance(self, done: int, failed: int = 0) -> None:
        """`done` more items came to their end, `failed` of them badly; tells the listener."""
        with self._lock:
            self.done += done
            self.failed += failed
            self._last = time.perf_counter()
            self.listener(self.snapshot())

    @property
    def started(self) -> float:
        """When the job began, on the performance counter."""
        return self._start

    @property
    def elapsed(self) -> float:
        return time.perf_counter() - self._start

    @property
    def rate(self) -> float:
        """Items a second since the first batch came."""
        if self._first is None:
            return 0.0
        done = self.done - self._done_before
        return done / max(time.perf_counter() - self._first, 1e-9)

    @property
    def final_rate(self) -> float:
        """Items a second between the first batch's coming and the last one's end."""
        if self._first is None or self._last is None:
            return 0.0
        return (self.done - self._done_before) / max(self._last - self._first, 1e-9)

    @property
    def startup(self) -> float:
        """Seconds until the first items came: starting workers, mostly."""
        return 0.0 if self._first is None else self._first - self._start

    def wall(self, stage: str) -> float:
        """Seconds of a stage as the clock sees it: image stages share `workers` processes."""
        seconds = self.stages[stage].seconds if stage in self.stages else 0.0
        return seconds / max(self.workers, 1) if stage in IMAGE_STAGES else seconds

    def bottleneck(self) -> str | None:
        """The stage that the others wait for; the image stages are one pipeline."""
        if not self.stages:
            return None
        images = sum(self.wall(s) for s in IMAGE_STAGES)
        others = {s: self.wall(s) for s in self.stages if s not in IMAGE_STAGES}
        busiest = max(others, key=others.__getitem__, default=None)
        if busiest is not None and others[busiest] >= images:
            return busiest
        return max(IMAGE_STAGES, key=self.wall)

    def snapshot(self) -> Snapshot:
        """What a display needs to know now."""
        most = max((self.wall(s) for s in self.stages), default=0.0) or 1.0
        shares = {s: self.wall(s) / most for s in self.stages}
        return Snapshot(
            *(self.verb, self.done, self.total, self.failed, self.elapsed, self.rate, shares),
            self.noun,
        )

    def report(self) -> dict[str, Any]:
        """The stages part of the --json document."""
        return {
            name: {"seconds": round(entry.seconds, 4), "items": entry.items}
            for name, entry in self.stages.items()
        }
