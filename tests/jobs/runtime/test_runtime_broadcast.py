"""Events of a job: what they say, that each comes once, and that no follower ends a job."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentcli.jobs.runtime import delivery
from latentcli.jobs.runtime.broadcast import Broadcast
from latentcli.jobs.runtime.events import Event, Progress, now_utc
from latentcli.jobs.runtime.meter import Meter, ignore
from latentcli.jobs.runtime.reporter import Committed

NEVER = 3600.0
FACTS = {"verb": "encode", "store": None, "model": "toy", "rank": 0, "world": 1}


class Clock:
    """A clock that goes when it is told to."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class Kept:
    """A follower that keeps what it is given, and tells of each event."""

    name, patience = "The list", 60.0

    def __init__(self, told: Callable[[Event], object] = lambda event: None) -> None:
        self.events: list[dict[str, Any]] = []
        self.told = told

    def write(self, event: Event) -> None:
        self.events.append(dict(event))
        self.told(event)

    @property
    def names(self) -> list[str]:
        return [event["event"] for event in self.events]


class Full(Kept):
    """One that refuses every event."""

    name = "The full disk"

    def write(self, event: Event) -> None:
        super().write(event)
        raise OSError(28, "No space left on device")


def released(
    *followers: Kept, note: Callable[[str], object] = ignore, period: float = NEVER
) -> Broadcast:
    """A broadcast whose threads may begin."""
    broadcast = Broadcast(followers, FACTS, note, period)
    broadcast.release()
    return broadcast


def test_a_whole_job():
    kept, clock = Kept(), Clock()
    broadcast = released(kept)
    broadcast.start({"pid": 7})
    broadcast.status("Loading the model")
    broadcast.about("out", "toy_2")
    meter = Meter("encode", 8, broadcast.progress, clock=clock)
    meter.begin()
    clock.now += 4
    meter.add("encode", 2.0, 8)
    meter.advance(8, 1)
    broadcast.committed(Committed(0, 7, 1, 500))
    broadcast.note("Look.")
    broadcast.end(3, "Too many failed.")
    start, status, unit, note, end = kept.events
    assert kept.names == ["start", "status", "unit", "note", "end"]
    assert (start["pid"], start["store"], start["model"], start["done"]) == (7, None, "toy", None)
    assert status["text"] == "Loading the model" and note["text"] == "Look."
    assert unit["unit"] == {"unit": 0, "encoded": 7, "failed": 1, "bytes": 500, "rank": 0}
    assert (unit["units"], unit["bytes"], unit["store"], unit["model"]) == (1, 500, "out", "toy_2")
    assert (end["exit_code"], end["error"]) == (3, "Too many failed.")
    assert (end["done"], end["total"], end["failed"], end["noun"]) == (8, 8, 1, "images")
    assert (end["rate"], end["rate_whole"], end["eta"], end["elapsed"]) == (2.0, 2.0, 0.0, 4.0)
    assert end["stages"] == {"encode": {"rate": 2.0, "busy": 0.5, "threads": 1}}
    times = [datetime.fromisoformat(event["time"]) for event in kept.events]
    assert times == sorted(times) and all(time.utcoffset().total_seconds() == 0 for time in times)


def test_between_the_periods_nothing_is_told():
    kept = Kept()
    broadcast = released(kept)
    broadcast.start({})
    meter = Meter("encode", 1000, broadcast.progress)
    meter.begin()
    for _ in range(1000):
        meter.advance(1)
    broadcast.end(0)
    assert kept.names == ["start", "end"] and kept.events[-1]["done"] == 1000


def test_a_job_that_stands_still_is_told_of_too():
    told = threading.Semaphore(0)
    kept = Kept(lambda event: event["event"] == "progress" and told.release())
    broadcast = released(kept, period=0.01)
    meter = Meter("encode", 10, broadcast.progress)
    meter.begin()
    meter.advance(1)
    for _ in range(3):
        assert told.acquire(timeout=60)
    broadcast.end(0)
    seen = [event for event in kept.events if event["event"] == "progress"]
    assert [event["done"] for event in seen] == [1] * len(seen)
    assert [event["rate"] for event in seen[1:]] == [0.0] * (len(seen) - 1)
    elapsed = [event["elapsed"] for event in seen]
    assert elapsed == sorted(elapsed)


def test_a_follower_that_fails_is_told_once_and_the_others_go_on():
    full, kept, notes = Full(), Kept(), []
    broadcast = released(full, kept, note=notes.append)
    broadcast.start({})
    meter = Meter("encode", 3, broadcast.progress)
    for number in range(3):
        meter.advance(1)
        broadcast.committed(Committed(number, 1, 0, 1))
    broadcast.end(0)
    assert notes == ["The full disk cannot be written: No space left on device. The job goes on."]
    assert kept.names == full.names == ["start", "unit", "unit", "unit", "end"]


def test_the_job_does_not_wait_for_a_follower():
    begun, free = threading.Event(), threading.Event()

    def hang(event: Event) -> None:
        if event["event"] == "note":
            begun.set()
            assert free.wait(60)

    kept = Kept(hang)
    broadcast = released(kept)
    meter = Meter("encode", 100, broadcast.progress)
    meter.advance(1)
    broadcast.note("first")
    assert begun.wait(60)
    for number in range(99):
        meter.advance(1)
        broadcast.committed(Committed(number, 1, 0, 1))
    assert kept.names == ["note"]
    free.set()
    broadcast.end(0)
    assert kept.names == ["note", *["unit"] * 99, "end"]


def test_a_follower_that_hangs_does_not_keep_the_process():
    free, notes = threading.Event(), list[str]()
    kept = Kept(lambda event: free.wait(60))
    kept.patience = 0.01
    broadcast = released(kept, note=notes.append)
    broadcast.note("first")
    broadcast.end(0)
    assert "end" not in kept.names
    assert notes == ["The list did not take all events in 0.01 s; the last are lost."]
    free.set()


def test_a_follower_that_hangs_keeps_nothing_from_the_others():
    free, told = threading.Event(), threading.Event()
    hung = Kept(lambda event: free.wait(60))
    kept = Kept(lambda event: event["event"] == "unit" and told.set())
    broadcast = released(hung, kept)
    broadcast.start({})
    broadcast.committed(Committed(0, 1, 0, 1))
    assert told.wait(60)
    assert hung.names == ["start"]
    free.set()
    broadcast.end(0)
    assert hung.names == kept.names == ["start", "unit", "end"]


def test_the_end_says_that_it_waits(monkeypatch):
    monkeypatch.setattr(delivery, "SOON", 0.01)
    free, notes = threading.Event(), list[str]()

    def note(text: str) -> None:
        notes.append(text)
        free.set()

    kept = Kept(lambda event: free.wait(60))
    broadcast = released(kept, note=note)
    broadcast.end(0)
    assert kept.names == ["end"]
    assert notes == ["The list has not taken the last events yet: waiting 60 s at most."]


def test_no_thread_begins_before_the_release():
    """With one, loader processes could not be forked."""
    before, kept = threading.active_count(), Kept()
    broadcast = Broadcast([kept], FACTS, period=NEVER)
    broadcast.start({})
    broadcast.status("Loading")
    broadcast.release()
    assert (threading.active_count(), kept.names) == (before, [])
    broadcast.status("Loading the model")
    assert threading.active_count() > before
    broadcast.end(0)
    assert kept.names == ["start", "status", "status", "end"]


def test_a_job_that_fails_before_the_release_is_told_all_the_same():
    kept = Kept()
    broadcast = Broadcast([kept], FACTS, period=NEVER)
    broadcast.start({})
    broadcast.end(1, "It cannot be loaded.")
    broadcast.end(1, "again")
    assert kept.names == ["start", "end"] and kept.events[-1]["error"] == "It cannot be loaded."


def test_figures_are_those_of_the_time_in_between():
    clock, progress = Clock(), Progress()
    meter = Meter("encode", 100, workers=0, clock=clock)
    meter.begin()
    for count, rate, whole, busy in ((10, 2.0, 2.0, 0.2), (40, 8.0, 5.0, 0.9)):
        clock.now += 5
        meter.add("encode", 5 * busy, count)
        meter.advance(count)
        found = progress.figures(meter.snapshot())
        assert (found["rate"], found["rate_whole"]) == (rate, whole)
        assert found["stages"]["encode"] == {"rate": rate, "busy": busy, "threads": 1}
    assert found["bottleneck"] == "encode" and found["eta"] == 10.0
    assert found["bottleneck_reason"].startswith(
        "The slowest stage is encode: the model is busy 90%"
    )
    whole = progress.figures(meter.snapshot(), whole=True)
    assert whole["rate"] == 5.0 and whole["stages"]["encode"]["busy"] == 0.55
    assert whole["bottleneck"] is None


def test_a_job_of_several_parts_begins_anew():
    progress = Progress()
    clock = Clock()
    first, second = (Meter("bench", 4, clock=clock) for _ in range(2))
    first.begin()
    clock.now += 5
    first.advance(4)
    progress.figures(first.snapshot())
    second = Meter("bench", 4, clock=clock)
    second.begin()
    clock.now += 1
    second.advance(1)
    assert progress.figures(second.snapshot())["rate"] == 1.0


@given(st.lists(st.integers(0, 50), min_size=1, max_size=20))
def test_the_rates_of_all_intervals_give_what_is_done(steps):
    clock, progress = Clock(), Progress()
    meter = Meter("encode", None, clock=clock)
    meter.begin()
    told = 0.0
    for step in steps:
        clock.now += 0.5
        meter.advance(step)
        found = progress.figures(meter.snapshot())
        told += found["rate"] * 0.5
    assert found["done"] == sum(steps) == pytest.approx(told, abs=0.01 * len(steps))
    assert found["total"] is None and found["eta"] is None


def test_the_time_is_utc():
    assert now_utc().endswith("Z") and len(now_utc()) == len("2026-01-01T00:00:00.000Z")
