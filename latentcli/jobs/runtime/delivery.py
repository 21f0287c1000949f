"""Gives the events of a job to one follower, in a thread of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import SimpleQueue

from latentcli.jobs.runtime.events import Event, Follower

SOON = 2.0
"""Seconds that the end of a job waits for a follower before it says so."""


class Delivery:
    """The events that a follower is still to get.

    A follower that raises is told of in one note, and is given the next event all the same: a disk
    may have room again.
    """

    def __init__(self, follower: Follower, note: Callable[[str], object]) -> None:
        """`note` shows a sentence."""
        self._follower, self._note = follower, note
        self._is_told = False
        """Whether its trouble is known."""
        self._events: SimpleQueue[Event | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="follower", daemon=True)

    def put(self, event: Event | None) -> None:
        """Gives it an event once it has all those before; None is behind the last one."""
        self._events.put(event)

    def begin(self) -> None:
        """Starts the thread; once."""
        self._thread.start()

    def finish(self, since: float) -> None:
        """Waits until it has all events, as long as it has patience from a moment on.

        Says so where that takes long, and where it is not enough. The moment is one of
        `time.monotonic`.
        """
        name, patience = self._follower.name, self._follower.patience
        if self._waited(since + min(SOON, patience)):
            return
        if patience > SOON:
            self._note(f"{name} has not taken the last events yet: waiting {patience:g} s at most.")
        if not self._waited(since + patience):
            self._note(f"{name} did not take all events in {patience:g} s; the last are lost.")

    def _waited(self, until: float) -> bool:
        self._thread.join(max(until - time.monotonic(), 0))
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (event := self._events.get()) is not None:
            try:
                self._follower.write(event)
            except Exception as error:
                self._tell(error)

    def _tell(self, error: Exception) -> None:
        if not self._is_told:
            self._is_told = True
            reason = getattr(error, "strerror", None) or str(error).strip().partition("\n")[0]
            reason = reason.rstrip(".") or type(error).__name__
            self._note(f"{self._follower.name} cannot be written: {reason}. The job goes on.")
