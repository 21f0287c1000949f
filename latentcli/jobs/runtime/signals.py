"""Turns signals into a request to stop, so that a job finishes its batch and then leaves."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import FrameType

from latentcli.core.errors import Interrupted

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
ECHO = 1.0
"""Seconds within which the same signal again is the same request: launchers pass on what a whole
group of processes has got already."""


@dataclass(slots=True)
class StopRequest:
    """Whether a signal has come, and which."""

    advice: str
    """What to do after it, in one sentence."""
    signal: int | None = None
    came: float = 0.0
    """When, on the monotonic clock."""
    listen: Callable[[], None] = field(default=lambda: None)
    """Sets the handlers once more, where a library has set its own."""

    def check(self) -> None:
        """Interrupted where a signal has come; called between batches."""
        if self.signal is not None:
            name = signal.Signals(self.signal).name
            raise Interrupted(f"Stopped by {name}. {self.advice}")


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
def stop_at_once() -> Iterator[None]:
    """SIGTERM and SIGUSR1 raise KeyboardInterrupt with their name, as SIGINT does without one.

    For the time in which a job loads its code and has nothing to finish. Outside the main thread
    nothing is changed.
    """

    def handle(number: int, _: FrameType | None) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    with handled(handle, (signal.SIGTERM, signal.SIGUSR1)):
        yield


@contextmanager
def stop_on_signals(advice: str) -> Iterator[StopRequest]:
    """SIGINT, SIGTERM and SIGUSR1 set the request; a second one ends the process at once.

    Outside the main thread no handler can be set, and the request never comes.
    """
    request = StopRequest(advice)

    def handle(number: int, _: FrameType | None) -> None:
        now = time.monotonic()
        if request.signal == number and now - request.came < ECHO:
            return
        if request.signal is not None:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        request.signal, request.came = number, now

    def listen() -> None:
        with suppress(ValueError):
            for number in STOPPING:
                signal.signal(number, handle)

    request.listen = listen
    with handled(handle):
        yield request
