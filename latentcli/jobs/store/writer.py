"""Finds out who writes to a store, by what the writer's own small file says; it takes no lock."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from latentcli.shards.layout import HOLDERS
from latentcli.shards.storage.paths import AnyPath
from latentcli.shards.store.holder import Holder, read_holder
from latentcli.shards.store.lease import WATCHED, Claim


@dataclass(frozen=True, slots=True)
class Writer:
    """The process that has the right to write to a store."""

    host: str
    pid: int
    command: str
    since: float | None
    """When it began, in seconds since 1970 by the clock of the storage; None where unknown."""
    alive: bool | None
    """None where it runs on another machine, and gives no signs of life that can be seen."""
    beats: float = 0.0
    """Seconds between its signs of life; 0 where it gives none."""

    def to_json(self) -> dict[str, Any]:
        """Plain values, without what only this program needs."""
        fields = asdict(self)
        del fields["beats"]
        return fields


class WriterWatch:
    """Looks for the writer of a store again and again."""

    def __init__(self, store: AnyPath, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._seen: Claim | None = None
        self._since = 0.0
        """When its last sign of life was seen, on the clock; 0 before there was one."""
        self._first = 0.0

    def look(self) -> Writer | None:
        """Who writes now; None where nobody does, or who did has surely ended."""
        writer = self._holder()
        return self._leaseholder() if writer is None else writer

    def _holder(self) -> Writer | None:
        """The one that has locked the folder."""
        path, began = self._store / HOLDERS[0], None
        holder = None
        with suppress(OSError):
            holder = read_holder(path, Holder)
            began = path.stat().st_mtime_ns / 1e9
        if holder is None or holder.is_dead():
            return None
        alive = True if holder.is_here() else None
        return Writer(holder.host, holder.pid, holder.command, began, alive)

    def _leaseholder(self) -> Writer | None:
        """The one that raises the counter of a lease."""
        claim = None
        with suppress(OSError):
            claim = read_holder(self._store / HOLDERS[1], Claim)
        if claim is None or claim.is_dead():
            self._seen = None
            return None
        now, before = self._clock(), self._seen
        if before is None or before.token != claim.token:
            self._seen, self._first, self._since = claim, now, 0.0
        elif before.beat != claim.beat:
            self._seen, self._since = claim, now
        if now - max(self._since, self._first) > WATCHED * claim.seconds:
            return None
        alive = True if self._since or claim.is_here() else None
        return Writer(claim.host, claim.pid, claim.command, None, alive, claim.seconds)
