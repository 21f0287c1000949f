"""Gives the events of a running job to its followers, in a thread that the job never waits for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from queue import Empty, SimpleQueue
from typing import Any

from latentcli.jobs.runtime.events import (
    END,
    NOTE,
    PROGRESS,
    START,
    STATUS,
    UNIT,
    Event,
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

    Between two events it keeps the last snapshot and does nothing. A follower that raises is told
    of in one note, and is given the next event all the same: a disk may have room again.
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
        self._followers = followers
        self._facts = dict(facts)
        self._note = note
        self._told = set[str]()
        """Followers whose trouble is known."""
        self._progress = Progress()
        self._last: Snapshot | None = None
        self._written = {"units": 0, "bytes": 0}
        self._events: SimpleQueue[Event | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._ended = False
        self._lock = threading.Lock()
        """Held while an event is queued, or given where there is no thread yet."""

    def start(self, more: Mapping[str, Any]) -> None:
        """The first event, with what is known of the process."""
        self._put(START, more)

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
        if self._thread is None:
            self._begin()

    def end(self, exit_code: int, error: str | None = None) -> None:
        """The last event; waits for the followers, but not for ever."""
        last = self._last
        figures = {} if last is None else self._progress.figures(latest(last), whole=True)
        thread = self._begin()
        self._put(END, figures | {"exit_code": exit_code, "error": error})
        thread.join(max(follower.patience for follower in self._followers))

    def _begin(self) -> threading.Thread:
        # Not before the job is at work: with a thread, loader processes could not be forked.
        with self._lock:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="followers", daemon=True)
                self._thread = thread
                thread.start()
            return self._thread

    def _put(self, name: str, fields: Mapping[str, Any]) -> None:
        event = {"time": now_utc(), "event": name, **self._facts, **counts(self._last)}
        event |= {**self._written, **fields}
        with self._lock:
            if self._ended:
                return  # nothing comes after the end
            self._ended = name == END
            if self._thread is None:
                self._give(event)
            else:
                self._events.put(event)
            if self._ended:
                self._events.put(None)

    def _run(self) -> None:
        due = time.monotonic() + self.period
        while True:
            try:
                event = self._events.get(timeout=max(due - time.monotonic(), 0))
            except Empty:
                due = time.monotonic() + self.period
                if self._last is not None:
                    self._put(PROGRESS, self._progress.figures(latest(self._last)))
                continue
            if event is None:
                return
            self._give(event)

    def _give(self, event: Event) -> None:
        for follower in self._followers:
            try:
                follower.write(event)
            except Exception as error:
                self._tell(follower, error)

    def _tell(self, follower: Follower, error: Exception) -> None:
        if follower.name not in self._told:
            self._told.add(follower.name)
            reason = getattr(error, "strerror", None) or str(error).strip().partition("\n")[0]
            reason = reason.rstrip(".") or type(error).__name__
            self._note(f"{follower.name} cannot be written: {reason}. The job goes on.")


def latest(snapshot: Snapshot) -> Snapshot:
    """The job as it is now; its rate is that of its last item where none has come since."""
    now = snapshot if snapshot.latest is None else snapshot.latest()
    return replace(now, rate=snapshot.rate) if now.finished else now
