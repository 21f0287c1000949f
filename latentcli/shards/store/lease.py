"""Keeps the right to be a store's only writer by heartbeats, where files cannot be locked.

The holder raises a counter in a small file every few seconds. Who finds the file watches whether
the counter moves, by a clock of its own that never goes back: hosts need not agree on the time.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from dataclasses import asdict, dataclass, replace

from latentcli.core.errors import StoreError
from latentcli.shards.layout import HOLDERS
from latentcli.shards.storage.atomic_write import writing
from latentcli.shards.storage.paths import AnyPath
from latentcli.shards.store.holder import Holder, read_holder, refused, write_holder

WATCHED = 3
"""Beats without a sign of life after which a lease is void."""

_SECONDS = 5.0
_SETTLE = 0.25


def beat_seconds() -> float:
    """Seconds between two beats: 5, or what LATENTCLI_LEASE_SECONDS says."""
    try:
        return max(0.01, float(os.environ.get("LATENTCLI_LEASE_SECONDS", _SECONDS)))
    except ValueError:
        return _SECONDS


@dataclass(frozen=True, slots=True)
class Claim(Holder):
    """What the file says."""

    token: str
    """Random: of this lease alone."""
    beat: int
    seconds: float
    """Between two beats of its holder."""


class Lease:
    """The right to write to a store, from `take` to `release`.

    StoreError where another job has it, or the storage refuses.
    """

    def __init__(self, store: AnyPath) -> None:
        self.store = store
        self._path = store / HOLDERS[1]
        here, token = asdict(Holder.here()), secrets.token_hex(16)
        self._mine = Claim(**here, token=token, beat=0, seconds=beat_seconds())
        self._other: Claim | None = None
        self._end = threading.Event()
        # Beats, and the end, come one at a time: nothing may be written after the release.
        self._busy = threading.Lock()
        self._alive = 0.0
        self._thread = threading.Thread(target=self._keep, name="latentcli-lease", daemon=True)

    def take(self) -> None:
        """Takes a free lease, or one whose holder is dead, and keeps it."""
        with writing(self._path):
            seen = read_holder(self._path, Claim)
            self._await_death(seen)
            self._claim(new=seen is None)
        self._alive = time.monotonic()
        self._thread.start()

    def _claim(self, *, new: bool) -> None:
        try:
            if not new or not self._create():
                _write(self._path, self._mine)
            # Not every storage can tell whether a file is new: there, of two that start at once,
            # the one that wrote last has it.
            time.sleep(self._mine.seconds * _SETTLE)
            now = read_holder(self._path, Claim)
            if now is not None and now.token != self._mine.token:
                raise refused(self.store, now)
        except BaseException:
            self.release()
            raise

    def _create(self) -> bool:
        """Whether the file is there now: ours where it is new, else that of who was first."""
        try:
            _write(self._path, self._mine, new=True)
        except OSError:  # of a storage that cannot do this, too
            return read_holder(self._path, Claim) is not None
        return True

    def check(self) -> None:
        """StoreError where another job took the lease over: then nothing more may be written."""
        if time.monotonic() - self._alive > 2 * self._mine.seconds:
            # This process was stopped for a while, or the storage was: see before it is used.
            self._beat()
        if self._other is not None:
            holder = self._other
            raise StoreError(
                f"{self.store} was taken over by another job: process {holder.pid} on host"
                f" {holder.host} ({holder.command}). This job sent no heartbeat for too long,"
                " because it was paused or could not reach the storage. It has ended; what it"
                " committed is safe."
            )

    def release(self) -> None:
        """Gives the lease back, if it is still this job's."""
        self._end.set()
        with self._busy:
            try:
                now = read_holder(self._path, Claim)
                if now is not None and now.token == self._mine.token:
                    self._path.unlink(missing_ok=True)
            except OSError:
                # The next job finds that its counter stands still.
                return

    def _await_death(self, seen: Claim | None) -> None:
        """Returns where nobody has the lease any more; StoreError where its counter moves."""
        if seen is None or seen.is_dead():
            return
        step = max(seen.seconds, self._mine.seconds)
        end = time.monotonic() + WATCHED * step
        while time.monotonic() < end:
            time.sleep(step / 4)
            now = read_holder(self._path, Claim)
            if now is None:
                return
            if (now.token, now.beat) != (seen.token, seen.beat):
                raise refused(self.store, now)

    def _keep(self) -> None:
        while not self._end.wait(self._mine.seconds) and self._other is None:
            self._beat()

    def _beat(self) -> None:
        with self._busy:
            if self._end.is_set() or self._other is not None:
                return
            try:
                now = read_holder(self._path, Claim)
                if now is not None and now.token != self._mine.token:
                    self._other = now
                    return
                self._mine = replace(self._mine, beat=self._mine.beat + 1)
                _write(self._path, self._mine)
            except OSError:
                # The writes of the job itself report trouble of the storage.
                return
            self._alive = time.monotonic()


def _write(path: AnyPath, claim: Claim, *, new: bool = False) -> None:
    write_holder(path, claim, f"{claim.token}-", new=new)
