"""Checks rates, intervals, totals of all ranks and the bottleneck that stage times give."""

from __future__ import annotations

import threading
import time

import pytest
from harness.processor import processor_seconds

from latentcli.jobs.runtime.bottleneck import ThreadGroup
from latentcli.jobs.runtime.meter import Meter, Snapshot


class Clock:
    """A clock that goes when it is told to."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def meter(workers: int = 1, **seconds: float) -> Meter:
    found = Meter("encode", 10, workers=workers)
    for stage, value in seconds.items():
        found.add(stage, value, 5)
    return found


@pytest.mark.parametrize(
    ("workers", "seconds", "bottleneck"),
    [
        (1, {"read": 1, "decode_image": 3, "encode": 2}, "decode_image"),
        (1, {"read": 1, "decode_image": 1.1, "preprocess": 1, "encode": 2.0}, "decode_image"),
        (2, {"read": 1, "decode_image": 3, "encode": 2.1}, "encode"),
        (4, {"preprocess": 8, "encode": 1, "write": 3}, "write"),
        (8, {"preprocess": 8.8, "encode": 1}, "preprocess"),
        (1, {"encode": 1}, "encode"),
        (1, {"read": 1}, "read"),
        (1, {"encode_image": 2, "decode": 1}, "encode_image"),
        (0, {"read": 1, "preprocess": 2, "encode": 2.5}, "encode"),
    ],
)
def test_the_bottleneck_is_what_the_others_wait_for(workers, seconds, bottleneck):
    found = meter(workers, **seconds)
    assert found.bottleneck() == bottleneck
    assert found.bottleneck_reason() is None  # too soon to say more


def test_nothing_done_has_no_bottleneck_and_no_rate():
    empty = Meter("encode", 3)
    assert empty.bottleneck() is None and empty.report() == {} and empty.verdict() is None
    assert (empty.snapshot().rate, empty.final_rate, empty.startup) == (0.0, 0.0, 0.0)
    seen = empty.snapshot()
    assert seen.eta is None and seen.stages() == () and seen.verdict() is None


def test_a_stage_adds_up():
    clock = Clock()
    found = Meter("encode", 10, clock=clock)
    found.add("read", 1.0, 5)
    found.add("read", 0.5, 2)
    with found.stage("encode", 3):
        clock.now += 0.25
    assert found.report() == {
        "read": {"seconds": 1.5, "items": 7},
        "encode": {"seconds": 0.25, "items": 3},
    }


def test_the_rate_leaves_start_up_out():
    clock = Clock()
    seen: list[Snapshot] = []
    found = Meter("encode", 10, seen.append, clock=clock)
    clock.now += 3
    found.begin()
    clock.now += 2
    found.begin()
    found.advance(4, 1)
    assert (found.startup, found.elapsed, found.final_rate) == (3.0, 5.0, 2.0)
    last = seen[-1]
    assert (last.done, last.total, last.failed, last.elapsed, last.rate) == (4, 10, 1, 5.0, 2.0)
    assert last.eta == 3.0
    clock.now += 2
    assert (found.snapshot().rate, found.final_rate) == (1.0, 2.0)


def test_the_start_can_move():
    clock = Clock()
    found = Meter("encode", 10, clock=clock)
    found.begin()
    found.add("decode_image", 5.0, 1)
    found.advance(1)
    clock.now += 3
    found.begin(again=True)
    clock.now += 4
    found.add("decode_image", 1.0, 7)
    found.advance(8)
    assert (found.startup, found.snapshot().rate) == (3.0, 2.0)
    (view,) = found.snapshot().whole.views()
    assert (view.items, view.rate, view.busy) == (8, 7 / 4, 0.25)


def test_the_real_clock_never_goes_backwards():
    found = Meter("encode", 1)
    assert found.clock is time.perf_counter and found.elapsed >= 0


def run(found: Meter, clock: Clock, batches: int, **seconds: float) -> None:
    """Batches of 8 items and one second each, with so many seconds of each stage."""
    for _ in range(batches):
        clock.now += 1
        for stage, value in seconds.items():
            found.add(stage, value, 8)
        found.advance(8)


def test_the_window_forgets_and_the_whole_does_not():
    clock = Clock()
    found = Meter("encode", 1000, workers=2, clock=clock, cores=8)
    found.begin()
    run(found, clock, 30, decode_image=1.9, encode=0.3)
    now = found.snapshot()
    assert now.recent.span == 10.0 and now.whole.span == 30.0
    verdict = now.verdict()
    assert verdict is not None and verdict.stage == "decode_image"
    run(found, clock, 12, decode_image=0.2, encode=0.95)
    now = found.snapshot()
    assert now.recent.span == 10.0 and now.whole.span == 42.0
    decode_image, encode = now.stages()
    assert (decode_image.rate, decode_image.items) == (8.0, 42 * 8)
    assert decode_image.busy == pytest.approx(0.2) and encode.busy == pytest.approx(0.95)
    verdict = now.verdict()
    assert verdict is not None and verdict.stage == "encode"
    assert now.whole.views()[1].busy == pytest.approx((30 * 0.3 + 12 * 0.95) / 42)
    assert found.verdict() is None and found.bottleneck() == "decode_image"


def test_slow_batches_make_the_window_wider():
    clock = Clock()
    found = Meter("encode", 100, clock=clock)
    found.begin()
    for _ in range(3):
        clock.now += 30
        found.add("encode", 27.0, 8)
        found.advance(8)
    now = found.snapshot()
    assert now.recent.span == 30.0
    assert now.stages()[0].busy == pytest.approx(0.9)


def test_few_readings_are_kept():
    clock = Clock()
    found = Meter("encode", None, clock=clock)
    found.begin()
    for _ in range(10_000):
        clock.now += 0.01
        found.advance(1)
    assert len(found._past) <= 22
    assert 10.0 <= found.snapshot().recent.span <= 11.0


def test_the_verdict_of_the_whole_job():
    clock = Clock()
    found = Meter("encode", 100, workers=2, clock=clock, cores=8, gpu=False)
    clock.now += 60  # start-up is nobody's fault
    found.begin()
    run(found, clock, 5, decode_image=1.9, encode=0.39)
    clock.now += 500  # nor is what comes after
    verdict = found.verdict()
    assert verdict is not None and found.bottleneck() == "decode_image"
    assert found.bottleneck_reason() == verdict.sentence
    assert verdict.sentence == (
        "The slowest stage is decode_image: 1.9 of 2 workers busy; the model is idle 61%;"
        " more --workers or smaller sources would help"
    )


def test_the_last_write_counts_though_no_item_follows_it():
    clock = Clock()
    found = Meter("encode", 8, clock=clock)
    found.begin()
    run(found, clock, 1, encode=0.5)
    with found.stage("write", 8):
        clock.now += 29
    assert found.bottleneck_reason() == (
        "The slowest stage is write: busy 97% of the time; the model is idle 98%; faster storage"
        " would help"
    )


@pytest.mark.parametrize(
    ("options", "threads"),
    [
        ({"workers": 4}, {"read": 4, "encode": 1}),
        ({"workers": 4, "threads": {"read": 1}}, {"read": 1, "encode": 1}),
        ({"workers": 0}, {"read": 1, "encode": 1}),
        ({"groups": (ThreadGroup(("read", "encode"), 3),)}, {"read": 3, "encode": 3}),
    ],
)
def test_threads(options, threads):
    found = Meter("encode", 1, **options)
    for stage in threads:
        found.add(stage, 1.0, 1)
    assert {view.name: view.threads for view in found.snapshot().stages()} == threads


def test_ranks_share_their_totals():
    whole = [0, 0]

    def share(done: int, failed: int) -> tuple[int, int]:
        whole[:] = whole[0] + done, whole[1] + failed
        return whole[0], whole[1]

    clock, seen = Clock(), list[Snapshot]()
    first = Meter("encode", 100, seen.append, clock=clock, shared=share, ranks=2)
    second = Meter("encode", 100, clock=clock, shared=share, ranks=2)
    first.begin()
    first.advance(10)
    second.begin()
    clock.now += 5
    second.advance(20, 3)
    first.advance(10, 1)
    last = seen[-1]
    assert (last.done, last.failed, last.total, last.ranks) == (40, 4, 100, 2)
    assert (last.rate, last.eta) == (8.0, 7.5)
    assert (first.done, first.failed, second.done, second.failed) == (20, 1, 20, 3)
    assert second.snapshot().rate == 4.0  # what was done before it began is not counted
    clock.now += 5
    first.advance(0)
    assert first.final_rate == 8.0  # nothing new came
    second.advance(60)
    first.advance(0)
    assert (seen[-1].done, seen[-1].finished, first.final_rate) == (100, True, 10.0)


@pytest.mark.parametrize(("total", "guess"), [(None, False), (50, True)])
def test_a_total_that_nobody_knows_gives_no_time_to_go(total, guess):
    found = Meter("encode", total, total_is_guess=guess)
    found.begin()
    found.advance(50)
    now = found.snapshot()
    assert now.rate > 0 and now.eta is None and not now.finished


def test_many_threads():
    seen: list[int] = []

    def listen(snapshot: Snapshot) -> None:
        seen.append(snapshot.done)

    found = Meter("encode", 8000, listen, shared=None)
    found.begin()

    def work() -> None:
        for _ in range(1000):
            found.add("encode", 0.001, 2)
            found.add("write", 0.002, 1)
            found.advance(1, 1)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (found.done, found.failed) == (8000, 8000)
    assert seen == list(range(1, 8001))
    assert found.report() == {
        "encode": {"seconds": 8.0, "items": 16000},
        "write": {"seconds": 16.0, "items": 8000},
    }


def test_no_stage_waits_for_a_drawing():
    drawing, drawn = threading.Event(), threading.Event()

    def draw(_: Snapshot) -> None:
        drawing.set()
        assert drawn.wait(60)

    found = Meter("encode", 1, draw)
    thread = threading.Thread(target=found.advance, args=(1,))
    thread.start()
    assert drawing.wait(60)
    other = threading.Thread(target=found.add, args=("encode", 1.0, 1))
    other.start()
    other.join(30)
    was_free = not other.is_alive()
    drawn.set()
    thread.join()
    other.join()
    assert was_free


def test_an_advance_costs_next_to_nothing():
    found = meter(read=1, decode_image=1, preprocess=1, encode=1, write=1)
    found.begin()

    def advance() -> None:
        for _ in range(2000):
            found.advance(1)

    def count() -> None:
        for _ in range(2000):
            sum(range(100))

    # It is 10 times as long.
    assert processor_seconds(advance) < 50 * processor_seconds(count)
