"""Stage times in; rates, shares and the bottleneck out."""

from __future__ import annotations

import time

import pytest

from latentcli.jobs.meter import Meter, Snapshot


def meter(workers: int = 1, **seconds: float) -> Meter:
    found = Meter("encode", 10, workers=workers)
    for stage, value in seconds.items():
        found.add(stage, value, 5)
    return found


@pytest.mark.parametrize(
    ("workers", "seconds", "bottleneck"),
    [
        (1, {"read": 1, "decode_image": 3, "encode": 2}, "decode_image"),
        (1, {"read": 1, "decode_image": 1.1, "preprocess": 1, "encode": 2.5}, "decode_image"),
        (2, {"read": 1, "decode_image": 3, "encode": 2.1}, "encode"),
        (4, {"preprocess": 8, "encode": 1, "write": 3}, "write"),
        (8, {"preprocess": 8.8, "encode": 1}, "preprocess"),
        (1, {"encode": 1}, "encode"),
        (1, {"read": 1}, "read"),
        (1, {"encode_image": 2, "decode": 1}, "encode_image"),
    ],
)
def test_the_bottleneck_is_what_the_others_wait_for(workers, seconds, bottleneck):
    assert meter(workers, **seconds).bottleneck() == bottleneck


def test_nothing_done_has_no_bottleneck_and_no_rate():
    empty = Meter("encode", 3)
    assert empty.bottleneck() is None and empty.report() == {}
    assert (empty.rate, empty.final_rate, empty.startup) == (0.0, 0.0, 0.0)
    assert empty.snapshot().eta is None


def test_image_stages_are_shared_by_the_workers():
    shares = meter(4, decode_image=8, encode=4).snapshot().shares
    assert shares == {"decode_image": 0.5, "encode": 1.0}


def test_a_stage_adds_up():
    found = meter(read=1.0)
    found.add("read", 0.5, 2)
    with found.stage("encode", 3):
        time.sleep(0.02)
    assert found.report()["read"] == {"seconds": 1.5, "items": 7}
    assert found.report()["encode"]["items"] == 3
    assert 0.02 <= found.report()["encode"]["seconds"] < 0.5


def test_the_rate_leaves_start_up_out():
    seen: list[Snapshot] = []
    found = Meter("encode", 10, seen.append)
    time.sleep(0.1)
    found.begin()
    time.sleep(0.02)
    found.begin()
    found.advance(4, 1)
    assert found.startup >= 0.1
    assert 4 / 0.2 < found.final_rate <= 4 / 0.02
    last = seen[-1]
    assert (last.done, last.total, last.failed) == (4, 10, 1)
    assert last.eta == pytest.approx(6 / last.rate)
    time.sleep(0.05)
    assert found.final_rate > found.rate
