"""Turns signals into a request to stop, so that a job finishes its batch and then leaves."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import FrameType

from latentcli.core.errors import Interrupted
from latentcli.jobs.runtime.process import STOPPING, stopped_by

ECHO = 1.0
"""Seconds within which the same signal again is the same request: launchers pass on what a whole
group of processes has got already."""

_outer: ContextVar[StopRequest | None] = ContextVar("outer", default=None)
"""The request of the `stop_at_once` that this runs in."""


@dataclass(slots=True)
class StopRequest:
    """Whether a signal has come, and which."""

    advice: str
    """What to do after it, in one sentence."""
    signal: int | None = None
    came: float = 0.0
    """When, on the monotonic clock."""
    eager: bool = False
    """Whether there is nothing to finish, so that a signal raises KeyboardInterrupt."""
    listen: Callable[[], None] = field(default=lambda: None)
    """Sets the handlers once more, where a library has set its own."""

    def check(self) -> None:
        """Interrupted where a signal has come; called between batches."""
        if self.signal is not None:
            raise Interrupted(f"{stopped_by(self.signal)} {self.advice}")

    def handle(self, number: int, _: FrameType | None) -> None:
        """Handles a signal; a second one ends the process at once."""
        now = time.monotonic()
        if self.signal == number and now - self.came < ECHO:
            return
        if self.signal is not None:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.signal, self.came = number, now
        if self.eager:
            raise KeyboardInterrupt(signal.Signals(number).name)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """A signal ends the block wherever it is: Interrupted, as of `check`.

        For what may take long and has nothing to finish: a scan, the loading of a model.
        """
        self.eager = True
        try:
            self.check()
            yield
        except (KeyboardInterrupt, Exception):
            self.check()  # a library may give the signal as damage of what it was reading
            raise
        finally:
            self.eager = False
        self.check()  # code that is not ours may have caught it


@contextmanager
def handled(
    handle: Callable[[int, FrameType | None], None], numbers: Sequence[int] = STOPPING
) -> Iterator[None]:
    """Has these signals handled within the block; outside the main thread nothing is changed."""
    before = {}
    with suppress(ValueError):
        before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def stop_at_once(advice: str) -> Iterator[StopRequest]:
    """SIGINT, SIGTERM and SIGUSR1 raise KeyboardInterrupt with their name, and set the request.

    For the time in which a job loads its code and has nothing to finish. Imports may turn the
    exception into another one, or drop it: the request, and that of a `stop_on_signals` within,
    know of the signal all the same. Outside the main thread nothing is changed.
    """
    request = StopRequest(advice, eager=True)
    token = _outer.set(request)
    try:
        with handled(request.handle):
            yield request
    finally:
        _outer.reset(token)


@contextmanager
def stop_on_signals(advice: str) -> Iterator[StopRequest]:
    """SIGINT, SIGTERM and SIGUSR1 set the request; a second one ends the process at once.

    Outside the main thread no handler can be set, and the request never comes.
    """
    request = StopRequest(advice)
    outer = _outer.get()
    if outer is not None and outer.signal is not None:
        request.signal, request.came = outer.signal, outer.came

    def listen() -> None:
        with suppress(ValueError):
            for number in STOPPING:
                signal.signal(number, request.handle)

    request.listen = listen
    with handled(request.handle):
        yield request


@contextmanager
def held_back() -> Iterator[None]:
    """Threads and processes that are started in the block begin with the stopping signals blocked.

    A process of latentcli takes them as soon as it can tell of them.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
