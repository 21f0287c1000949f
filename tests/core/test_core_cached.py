"""A value is found once, and a fork does not wait for who finds another."""

from __future__ import annotations

import os
import pickle
import signal
import threading

from latentcli.core.cached import cached


class Found:
    """Something that is slow to find."""

    gate: threading.Event | None = None
    times = 0

    @cached
    def value(self) -> int:
        """What is found."""
        self.times += 1
        if self.gate is not None:
            begun, self.gate = self.gate, threading.Event()
            begun.set()
            self.gate.wait()
        return 7


def test_it_is_found_once():
    one = Found()
    assert (one.value, one.value, one.times) == (7, 7, 1)
    assert pickle.loads(pickle.dumps(one)).__dict__ == {"times": 1, "value": 7}
    one.value = 8
    assert one.value == 8
    del one.value
    assert one.value == 7
    assert Found.value.__doc__ == "What is found."


def test_a_fork_finds_its_own_while_a_thread_finds_another():
    begun = threading.Event()
    slow, other = Found(), Found()
    slow.gate = begun
    thread = threading.Thread(target=lambda: slow.value)
    thread.start()
    begun.wait()
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(10)
        os._exit(other.value)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    slow.gate.set()
    thread.join()
    assert code == 7 and slow.value == 7
