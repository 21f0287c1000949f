"""Prefetching: order, errors, how far ahead, and that no thread outlives its block."""

from __future__ import annotations

import threading
import time

import pytest

from latentcli.jobs.loader.prefetch import prefetch


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


@pytest.mark.parametrize("count", [0, 1, 50])
def test_items_come_in_order(count):
    with prefetch(range(count), 3) as items:
        assert list(items) == list(range(count))
    assert not threads()


def test_an_error_comes_where_its_item_would():
    def source():
        yield from range(4)
        raise OSError("gone")

    seen = []
    with pytest.raises(OSError, match="gone"), prefetch(source(), 2) as items:
        seen += [next(items) for _ in range(4)]
        next(items)
    assert seen == [0, 1, 2, 3] and not threads()


def test_it_runs_ahead_but_no_further_than_told():
    made = []

    def source():
        for number in range(100):
            made.append(number)
            yield number

    with prefetch(source(), 5) as items:
        assert next(items) == 0
        deadline = time.monotonic() + 10
        while len(made) < 7 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.2)
        # one taken, five that wait, one in the hand of the thread
        assert len(made) == 7
    assert not threads()


def test_leaving_early_ends_the_thread():
    def endless():
        number = 0
        while True:
            yield number
            number += 1

    with prefetch(endless(), 2) as items:
        assert [next(items) for _ in range(10)] == list(range(10))
    assert not threads()


def test_an_error_of_the_block_ends_the_thread():
    with pytest.raises(KeyError), prefetch(range(10**9), 2) as items:
        next(items)
        raise KeyError
    assert not threads()


def test_who_waits_may_give_up():
    def slow():
        time.sleep(0.5)
        yield 1

    def stop():
        raise InterruptedError

    with pytest.raises(InterruptedError), prefetch(slow(), 1, stop) as items:
        next(items)
    assert not threads()


@pytest.mark.parametrize(("size", "expected"), [(100, 2), (50, 3), (1000, 2), (0, 7)])
def test_what_waits_is_bounded_in_bytes(size, expected):
    """One is taken, one is in the hand of the thread, and those between have 100 bytes at most."""
    made: list[int] = []

    def source():
        for number in range(20):
            made.append(number)
            yield number

    with prefetch(source(), 5, size_of=lambda _: size, most_bytes=100) as items:
        next(items)
        deadline = time.monotonic() + 60
        while len(made) < expected + (size > 0) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.2)
        assert len(made) == expected + (size > 0)
