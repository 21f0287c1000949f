"""Measures seconds and items per stage of a job, and tells listeners its progress.

All times are of the performance counter: the clock on the wall may go backwards.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from latentcli.jobs.runtime.advice import Setting
from latentcli.jobs.runtime.bottleneck import IMAGE_STAGES as IMAGE_STAGES
from latentcli.jobs.runtime.bottleneck import (
    Interval,
    Reading,
    StageView,
    ThreadGroup,
    Verdict,
    thread_groups,
)
from latentcli.jobs.runtime.machine import cores

RECENT = 10.0
"""Seconds that the live figures look back."""
STEP = 0.5
"""Seconds between the readings that are kept for them."""


@dataclass(slots=True)
class StageTime:
    """What one stage has done so far."""

    seconds: float = 0.0
    items: int = 0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of a job for whoever shows it; what costs time is worked out when asked for."""

    verb: str
    """encode, decode or roundtrip."""
    done: int
    """Of the whole job, as are total, failed and rate, where several ranks share it."""
    total: int | None
    """None where nobody knows."""
    failed: int
    elapsed: float
    """Seconds since the first item was asked for."""
    rate: float
    """Items a second since the first batch came."""
    recent: Interval
    """This rank's stages in the last seconds."""
    whole: Interval
    """This rank's stages since the first batch came."""
    noun: str = "images"
    """What is counted."""
    total_is_guess: bool = False
    ranks: int = 1
    latest: Callable[[], Snapshot] | None = field(default=None, repr=False, compare=False)
    """Gives the state of the same job when it is called; None where nobody measures on."""

    @property
    def finished(self) -> bool:
        """Whether all is done that is known to be wanted."""
        return self.total is not None and not self.total_is_guess and self.done >= self.total

    @property
    def eta(self) -> float | None:
        """Seconds to go; None before there is a rate, and where the total is not known."""
        if self.total is None or self.total_is_guess or self.rate <= 0:
            return None
        return (self.total - self.done) / self.rate

    def stages(self) -> tuple[StageView, ...]:
        """Every stage in the last seconds."""
        return self.recent.views()

    def verdict(self) -> Verdict | None:
        """The limit of the last seconds, or None where nobody is."""
        return self.recent.verdict()


Listener = Callable[[Snapshot], None]


def ignore(*_: object) -> None:
    """Does nothing: stands for a listener where nobody listens."""


@dataclass(slots=True)
class Meter:
    """Collects stage times from any thread; who shares which stages is said by `thread_groups`."""

    verb: str
    total: int | None
    """Items of the whole job; None where nobody knows."""
    listener: Listener = ignore
    workers: int = 1
    """Processes that share the image stages; 0 where the model's thread does them too."""
    noun: str = "images"
    """What is counted: images, frames or cases."""
    total_is_guess: bool = False
    threads: dict[str, int] = field(default_factory=dict)
    """Stages that have threads of their own, and how many; say so before they run."""
    groups: tuple[ThreadGroup, ...] = ()
    """Stages that share threads in another way than is usual."""
    gpu: bool | None = None
    """Whether the model runs on one, for the advice; None where nobody said."""
    options: dict[str, str] = field(default_factory=dict)
    """Stage to an option of this job that makes it faster, for the advice."""
    shared: Callable[[int, int], tuple[int, int]] | None = None
    """Takes this rank's new (done, failed) and gives the whole job's so far."""
    ranks: int = 1
    clock: Callable[[], float] = time.perf_counter
    stages: dict[str, StageTime] = field(default_factory=dict)
    done: int = 0
    """By this rank."""
    failed: int = 0
    """By this rank."""
    waited: float = 0.0
    """Seconds that the model sat idle for want of a batch."""
    cores: int = field(default_factory=cores)
    _telling: threading.RLock = field(default_factory=threading.RLock)
    """Held while the listener draws, so that it sees snapshots in order."""
    _lock: threading.RLock = field(default_factory=threading.RLock)
    """Held for the sums alone, so that no stage waits for a drawing."""
    _start: float = 0.0
    _first: Reading | None = None
    _past: deque[Reading] = field(default_factory=deque)
    _groups: tuple[ThreadGroup, ...] = ()
    _whole: tuple[int, int] = (0, 0)
    """(done, failed) of the whole job."""
    _done_before: int = 0
    _last: float | None = None
    """When the last item came to its end."""
    _end: float = 0.0
    """When anything was last heard of."""

    def __post_init__(self) -> None:
        self._start = self._end = self.clock()

    def add(self, stage: str, seconds: float, items: int) -> None:
        """Time spent in a stage, as measured by whoever ran it."""
        with self._lock:
            entry = self.stages.get(stage)
            if entry is None:
                entry = self.stages[stage] = StageTime()
                self._groups = thread_groups(self.stages, self.workers, self.threads, self.groups)
            entry.seconds += seconds
            entry.items += items
            self._end = self.clock()

    @contextmanager
    def stage(self, name: str, items: int) -> Iterator[None]:
        """Times a block of this process as `items` of a stage."""
        start = self.clock()
        yield
        self.add(name, self.clock() - start, items)

    def begin(self, *, again: bool = False) -> None:
        """The first items are here: from now on the rate counts, start-up time does not.

        Only the first call counts, unless `again` moves the start: workers start one by one.
        """
        if self._first is None or again:
            with self._telling:
                whole = self.shared(0, 0) if self.shared is not None else self._whole
                with self._lock:
                    self._first = self._read(self.clock())
                    self._past = deque([self._first])
                    self._whole, self._done_before = whole, whole[0]

    def advance(self, done: int, failed: int = 0) -> None:
        """`done` more items came to their end, `failed` of them badly; tells the listener.

        With nothing new it only asks what the other ranks have done.
        """
        with self._telling:
            whole = self.shared(done, failed) if self.shared is not None else None
            with self._lock:
                self.done += done
                self.failed += failed
                before, self._whole = self._whole, whole or (self.done, self.failed)
                now = self.clock()
                if before != self._whole:
                    self._last = self._end = now
                self._remember(now)
            self.tell()

    def tell(self) -> None:
        """Shows the listener how things are."""
        with self._telling:
            self.listener(self.snapshot())

    def _read(self, now: float) -> Reading:
        return Reading(now, {name: (s.seconds, s.items) for name, s in self.stages.items()})

    def _remember(self, now: float) -> None:
        """Keeps a reading now and then: the oldest kept is the last that is RECENT old or older."""
        past = self._past
        if past and now - past[-1].time >= STEP:
            past.append(self._read(now))
            while len(past) > 1 and past[1].time <= now - RECENT:
                past.popleft()

    @property
    def started(self) -> float:
        """When the job began, on the performance counter."""
        return self._start

    @property
    def elapsed(self) -> float:
        return self.clock() - self._start

    @property
    def final_rate(self) -> float:
        """Items a second between the first batch's coming and the last one's end, of all ranks."""
        return 0.0 if self._last is None else self._rate(self._last)

    def _rate(self, until: float) -> float:
        if self._first is None:
            return 0.0
        return (self._whole[0] - self._done_before) / max(until - self._first.time, 1e-9)

    @property
    def startup(self) -> float:
        """Seconds until the first items came: starting workers, mostly."""
        return 0.0 if self._first is None else self._first.time - self._start

    def verdict(self) -> Verdict | None:
        """The limit of the whole job; None where nobody was, or it was too short to tell."""
        with self._lock:
            now = self._read(self._end)
            return self._window(self._first, now).verdict()

    def bottleneck(self) -> str | None:
        """The stage that the others wait for, or the one that took longest; None without stages."""
        verdict = self.verdict()
        if verdict is not None:
            return verdict.stage
        with self._lock:
            if not self.stages:
                return None
            spent = {name: entry.seconds for name, entry in self.stages.items()}
            group = max(
                self._groups, key=lambda c: sum(map(spent.__getitem__, c.stages)) / c.threads
            )
            return max(group.stages, key=spent.__getitem__)

    def bottleneck_reason(self) -> str | None:
        """The verdict in words, for the --json document."""
        verdict = self.verdict()
        return None if verdict is None else verdict.sentence

    def _window(self, before: Reading | None, now: Reading) -> Interval:
        setting = Setting(self.gpu, self.cores, self.noun == "frames", self.options)
        return Interval(before or now, now, self._groups, setting)

    def snapshot(self) -> Snapshot:
        """What a display needs to know now."""
        with self._lock:
            now = self._read(self.clock())
            return Snapshot(
                self.verb,
                self._whole[0],
                self.total,
                self._whole[1],
                now.time - self._start,
                self._rate(now.time),
                self._window(self._past[0] if self._past else None, now),
                self._window(self._first, now),
                self.noun,
                self.total_is_guess,
                self.ranks,
                self.snapshot,
            )

    def paces(self) -> dict[str, Any]:
        """How fast the job was, and why not faster, as every --json document says it."""
        return {
            "images_per_second": round(self.final_rate, 2),
            "stages": self.report(),
            "bottleneck": self.bottleneck(),
            "bottleneck_reason": self.bottleneck_reason(),
        }

    def report(self) -> dict[str, Any]:
        """The stages part of the --json document."""
        with self._lock:
            return {
                name: {"seconds": round(entry.seconds, 4), "items": entry.items}
                for name, entry in self.stages.items()
            }
