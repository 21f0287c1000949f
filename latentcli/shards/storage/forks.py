"""Keeps a fork from copying the thread of remote storage while that holds a lock.

fsspec asks storage in a thread of its own. Where a process is forked, as a DataLoader does it for
its workers, that thread is not in the child, but what it held stays locked there: the time parser's
lock, which botocore takes for each answer, or that of a module it was loading. So a fork waits
until the thread has ended the step it is at, and lets it go on afterwards.
"""

from __future__ import annotations

import os
import threading
from functools import cache
from importlib import import_module

WAIT = 5.0
"""Seconds that a fork waits at most: the thread itself may wait for what who forks holds."""

_waiting = threading.local()


@cache
def watch_forks() -> None:
    """Does so from now on; what is called again changes nothing."""
    import_module("fsspec.asyn")  # nothing is loaded while a process is forked
    os.register_at_fork(before=_stop_thread, after_in_parent=_let_go_on, after_in_child=_begin_anew)


def _stop_thread() -> None:
    from fsspec import asyn

    _waiting.end = None
    loop, thread = asyn.loop[0], asyn.iothread[0]
    if loop is None or thread in (None, threading.current_thread()):
        return
    reached, end = threading.Event(), threading.Event()

    def stand() -> None:
        reached.set()
        end.wait()

    try:
        loop.call_soon_threadsafe(stand)
    except RuntimeError:  # it is closed
        return
    _waiting.end = end
    reached.wait(WAIT)


def _let_go_on() -> None:
    end = getattr(_waiting, "end", None)
    if end is not None:
        end.set()


def _begin_anew() -> None:
    from fsspec import asyn

    asyn.reset_lock()
