"""Signals asked for politely: finish the batch, then leave, so that nothing half-written stays."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from latentcli.core.errors import Interrupted

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


@dataclass(slots=True)
class StopRequest:
    """Whether a signal has come, and which."""

    advice: str
    """What to do after it, in one sentence."""
    signal: int | None = None

    def check(self) -> None:
        """Interrupted where a signal has come; called between batches."""
        if self.signal is not None:
            name = signal.Signals(self.signal).name
            raise Interrupted(f"Stopped by {name}. {self.advice}")


@contextmanager
def stop_on_signals(advice: str) -> Iterator[StopRequest]:
    """SIGINT, SIGTERM and SIGUSR1 set the request; a second one ends the process at once.

    Outside the main thread no handler can be set, and the request never comes.
    """
    request = StopRequest(advice)

    def handle(number: int, _: FrameType | None) -> None:
        if request.signal is not None:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        request.signal = number

    try:
        before = {s: signal.signal(s, handle) for s in STOPPING}
    except ValueError:
        before = {}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
