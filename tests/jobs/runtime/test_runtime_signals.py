"""The first signal is a request, the second one ends the process at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress

import pytest

from latentcli.core.errors import Interrupted, WeightsError
from latentcli.jobs.runtime.process import STOPPING
from latentcli.jobs.runtime.signals import held_back, stop_at_once, stop_on_signals

TWICE = """
import os, signal, sys, time
from latentcli.jobs.runtime.signals import ECHO, stop_on_signals
with stop_on_signals("Once more.") as stop:
    os.kill(os.getpid(), signal.SIGTERM)
    assert stop.signal == signal.SIGTERM
    os.kill(os.getpid(), signal.SIGTERM)  # at once: the same request on another way
    print("still here", flush=True)
    time.sleep(ECHO + 0.1)
    os.kill(os.getpid(), int(sys.argv[1]))
    time.sleep(60)
"""


@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_is_a_request(number):
    with stop_on_signals("Once more.") as stop:
        stop.check()
        os.kill(os.getpid(), number)
        with pytest.raises(Interrupted, match=signal.Signals(number).name) as caught:
            stop.check()
    assert "Once more." in str(caught.value)


@pytest.mark.parametrize("number", STOPPING)
def test_the_second_ends_at_once(number):
    command = [sys.executable, "-c", TWICE, str(int(number))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.stdout == "still here\n"
    assert done.returncode == -number


def test_handlers_are_put_back():
    before = {number: signal.getsignal(number) for number in STOPPING}
    with pytest.raises(RuntimeError), stop_on_signals(""):
        assert signal.getsignal(signal.SIGTERM) is not before[signal.SIGTERM]
        raise RuntimeError
    assert {number: signal.getsignal(number) for number in STOPPING} == before


@pytest.mark.parametrize("number", STOPPING)
def test_a_library_may_set_its_own_handler_in_between(number):
    with stop_on_signals("") as stop:
        signal.signal(number, signal.SIG_IGN)
        os.kill(os.getpid(), number)
        assert stop.signal is None
        stop.listen()
        os.kill(os.getpid(), number)
        assert stop.signal == number


@pytest.mark.parametrize("number", STOPPING)
def test_before_there_is_work_a_signal_ends_the_process_in_good_order(number):
    before = {n: signal.getsignal(n) for n in STOPPING}
    with pytest.raises(KeyboardInterrupt) as caught, stop_at_once("Once more.") as stop:
        os.kill(os.getpid(), number)
        signal.sigtimedwait([], 1)
    assert caught.value.args == (number.name,) and stop.signal == number
    assert {n: signal.getsignal(n) for n in STOPPING} == before


def test_a_signal_that_an_import_dropped_is_not_lost():
    with stop_at_once("Once more."):
        with suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            signal.sigtimedwait([], 1)
        with stop_on_signals("Go on.") as stop, pytest.raises(Interrupted, match="Go on"):
            stop.check()
    with stop_on_signals("Go on.") as stop:
        stop.check()


def test_where_there_is_nothing_to_finish_a_signal_ends_the_block_at_once():
    passed = False
    with stop_on_signals("Once more.") as stop:
        with pytest.raises(Interrupted, match=r"Stopped by SIGTERM\. Once more"), stop.at_once():
            os.kill(os.getpid(), signal.SIGTERM)
            signal.sigtimedwait([], 1)
            passed = True
        assert not passed and not stop.eager


def test_a_signal_that_such_a_block_caught_ends_it_where_it_is_left():
    with (
        stop_on_signals("Once more.") as stop,
        pytest.raises(Interrupted),
        stop.at_once(),
        suppress(KeyboardInterrupt),
    ):
        os.kill(os.getpid(), signal.SIGINT)
        signal.sigtimedwait([], 1)


def test_signals_are_held_back_from_what_is_started():
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with held_back():
        assert set(STOPPING) <= signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == blocked


def test_outside_the_main_thread_nothing_is_asked():
    seen: list[object] = []

    def run() -> None:
        with stop_on_signals("") as stop:
            stop.check()
            seen.append(stop.signal)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [None]


def test_a_signal_that_a_library_takes_for_damage_is_told_as_what_it_is():
    with pytest.raises(Interrupted, match="SIGTERM"), stop_on_signals("Again.") as stop:
        damaged_in(stop, signal.SIGTERM)
    with pytest.raises(WeightsError), stop_on_signals("Again.") as stop:
        damaged_in(stop, None)


def damaged_in(stop, number):
    """Loads what is damaged, or what a signal makes seem so."""
    with stop.at_once():
        try:
            if number is not None:
                signal.raise_signal(number)
        except KeyboardInterrupt as error:
            raise WeightsError("the file is damaged") from error
        raise WeightsError("the file is damaged")
