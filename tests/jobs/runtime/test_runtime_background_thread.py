"""Calls on the lane run in order, a few behind, and stop at the first error."""

from __future__ import annotations

import threading
import time

import pytest

from latentcli.jobs.runtime.background_thread import BackgroundThread


def test_calls_run_in_order_on_one_other_thread():
    seen: list[tuple[int, int]] = []
    with BackgroundThread(3) as lane:
        for i in range(50):
            lane.submit(lambda n: seen.append((n, threading.get_ident())), i)
    assert [n for n, _ in seen] == list(range(50))
    assert len({thread for _, thread in seen} - {threading.get_ident()}) == 1


def test_no_more_than_its_depth_is_behind():
    gate, finished, behind = threading.Semaphore(0), [], []

    def call(n: int) -> None:
        gate.acquire()
        finished.append(n)

    with BackgroundThread(2) as lane:
        for n in range(20):
            if n >= 2:  # only once the lane is full, and while this thread waits in `submit`
                threading.Timer(0.01, gate.release).start()
            lane.submit(call, n)
            behind.append(n + 1 - len(finished))
        gate.release(2)
    assert behind == [1, *[2] * 19]
    assert finished == list(range(20))


def fail() -> None:
    raise OSError("full")


def test_an_error_comes_out_and_nothing_runs_after_it():
    seen: list[int] = []
    with pytest.raises(OSError, match="full"), BackgroundThread(2) as lane:
        lane.submit(seen.append, 1)
        lane.submit(fail)
        for i in range(10):
            lane.submit(seen.append, 2 + i)
    assert seen == [1]


def test_an_error_comes_out_at_the_end():
    with pytest.raises(OSError, match="full"), BackgroundThread(5) as lane:
        lane.submit(fail)


def test_what_was_submitted_is_finished_where_the_block_raises():
    seen: list[int] = []
    with pytest.raises(KeyError), BackgroundThread(5) as lane:
        lane.submit(lambda: (time.sleep(0.05), seen.append(1)))
        raise KeyError
    assert seen == [1]


def test_another_thread_can_ask_for_an_error():
    """Which comes out once more where the calls come from."""
    failed = threading.Event()
    with pytest.raises(OSError, match="full"), BackgroundThread(3) as lane:
        lane.check()
        lane.submit(fail)
        lane.submit(failed.set)  # does not run
        with pytest.raises(OSError, match="full"):
            while True:
                lane.check()
    assert not failed.is_set()
