"""Gives the events of a running job to its followers, in threads that the job never waits for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from latentcli.jobs.runtime.delivery import Delivery
from latentcli.jobs.runtime.events import (
    END,
    NOTE,
    PROGRESS,
    START,
    STATUS,
    UNIT,
    Follower,
    Progress,
    counts,
    now_utc,
)
from latentcli.jobs.runtime.meter import Snapshot, ignore
from latentcli.jobs.runtime.reporter import Committed

PERIOD = 5.0
"""Seconds between two progress events."""


class Broadcast:
    """What a job says to a Reporter, as events for some followers.

    Between two events it keeps the last snapshot and does nothing. Each follower has a thread, so
    that none waits for a disk or a service of another one.
    """

    def __init__(
        self,
        followers: Sequence[Follower],
        facts: Mapping[str, Any],
        note: Callable[[str], object] = ignore,
        period: float = PERIOD,
    ) -> None:
        """`facts` begin every event, after its time and name; `note` shows a sentence."""
        self.period = period
        self._facts = dict(facts)
        self._progress = Progress()
        self._last: Snapshot | None = None
        self._written = {"units": 0, "bytes": 0}
        self._deliveries = [Delivery(follower, note) for follower in followers]
        self._may_begin = False
        self._has_begun = False
        self._over = threading.Event()
        self._lock = threading.Lock()
        """Held while an event is queued, and while the threads are started."""

    def start(self, more: Mapping[str, Any]) -> None:
        """The first event, with what is known of the process."""
        self._put(START, more)

    def release(self) -> None:
        """Lets the threads begin with the next event; those before it wait until then.

        With a thread, loader processes could not be forked from a command that has loaded its code.
        """
        self._may_begin = True

    def status(self, text: str) -> None:
        """What the job is at before it has figures."""
        self._put(STATUS, {"text": text})

    def note(self, text: str) -> None:
        """A sentence for a person."""
        self._put(NOTE, {"text": text})

    def about(self, store: str, model: str) -> None:
        """Which store and model all later events name."""
        self._facts |= {"store": store, "model": model}

    def committed(self, unit: Committed) -> None:
        """A unit that is written."""
        with self._lock:
            self._written["units"] += 1
            self._written["bytes"] += unit.bytes
        self._put(UNIT, {"unit": asdict(unit)})

    def progress(self, snapshot: Snapshot) -> None:
        """Where the job is; told at the end of the period, as it is by then."""
        self._last = snapshot
        if not self._has_begun:
            self._begin()

    def end(self, exit_code: int, error: str | None = None) -> None:
        """The last event; waits for the followers, but not for ever, and says where it does."""
        if self._over.is_set():
            return
        self._over.set()
        last = self._last
        figures = {} if last is None else self._progress.figures(latest(last), whole=True)
        self.release()
        self._put(END, figures | {"exit_code": exit_code, "error": error})
        now = time.monotonic()
        for delivery in self._deliveries:
            delivery.finish(now)

    def _begin(self) -> None:
        with self._lock:
            if self._has_begun or not self._may_begin:
                return
            self._has_begun = True
            for delivery in self._deliveries:
                delivery.begin()
            threading.Thread(target=self._tick, name="followers", daemon=True).start()

    def _put(self, name: str, fields: Mapping[str, Any]) -> None:
        event = {"time": now_utc(), "event": name, **self._facts, **counts(self._last)}
        event |= {**self._written, **fields}
        with self._lock:
            if self._over.is_set() and name != END:
                return  # nothing comes after the end
            for delivery in self._deliveries:
                delivery.put(event)
                if name == END:
                    delivery.put(None)
        self._begin()

    def _tick(self) -> None:
        """Tells the figures at the end of each period."""
        while not self._over.wait(self.period):
            if self._last is not None:
                self._put(PROGRESS, self._progress.figures(latest(self._last)))


def latest(snapshot: Snapshot) -> Snapshot:
    """The job as it is now; its rate is that of its last item where none has come since."""
    now = snapshot if snapshot.latest is None else snapshot.latest()
    return replace(now, rate=snapshot.rate) if now.finished else now
