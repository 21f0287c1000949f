"""A process that is forked from one that reads remote storage can read it too."""

from __future__ import annotations

import _strptime
import os
import signal
import threading
import time

import pytest
from fsspec import asyn

from latentcli.shards.storage import forks
from latentcli.shards.storage.filesystem import filesystem


@pytest.fixture
def loop():
    """That of the thread which asks storage."""
    filesystem("memory://x")
    return asyn.get_loop()


def forked(work):
    """The exit code of a fork that does the work: 0, or less where it is not done in time."""
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(10)
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def held(loop, lock, seconds):
    """Has the thread hold a lock for some seconds from now on."""
    holding = threading.Event()

    def hold():
        with lock:
            holding.set()
            time.sleep(seconds)

    loop.call_soon_threadsafe(hold)
    holding.wait()


def test_a_lock_of_the_thread_is_not_held_in_a_fork(loop):
    """botocore reads the time of each answer so."""
    held(loop, _strptime._cache_lock, 0.5)
    assert forked(lambda: time.strptime("2026", "%Y")) == 0


def test_the_thread_goes_on_after_a_fork(loop):
    for _ in range(3):
        assert forked(lambda: None) == 0
        held(loop, threading.Lock(), 0)


def test_a_fork_while_the_thread_starts_has_one_of_its_own(loop):
    with asyn.get_lock():
        assert forked(asyn.get_loop) == 0


def test_a_fork_by_the_thread_itself_does_not_wait(loop):
    codes, done = [], threading.Event()

    def fork():
        codes.append(forked(lambda: None))
        done.set()

    begun = time.monotonic()
    loop.call_soon_threadsafe(fork)
    assert done.wait(60) and codes == [0] and time.monotonic() - begun < forks.WAIT


def test_a_thread_that_does_not_answer_does_not_stop_a_fork(loop, monkeypatch):
    monkeypatch.setattr(forks, "WAIT", 0.1)
    lock = threading.Lock()
    held(loop, lock, 1)
    assert forked(lambda: None) == 0
    with lock:  # it has gone on
        pass


def test_several_threads_fork_at_once(loop):
    codes = []
    threads = [
        threading.Thread(target=lambda: codes.append(forked(lambda: None))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == [0] * 8
    held(loop, lock=threading.Lock(), seconds=0)
