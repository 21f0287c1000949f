"""Defines the team of a job's processes: each unit is claimed once, totals are the whole job's.

A job that runs alone has a team of one, so that the job itself knows one way only.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from latentcli.jobs.cluster.environment import Rank

ALONE = Rank(0, 1, 0)


@dataclass
class Team:
    """What the processes of one job do together; as it is here, a team of one.

    Every method may be called from any thread.
    """

    rank: Rank = ALONE
    """This process's rank."""
    _plan: str = ""
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _totals: dict[str, int] = field(default_factory=dict)
    _reports: list[str] = field(default_factory=list)
    _told: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def broadcast(self, plan: str) -> None:
        """The leader, once: gives the plan to the others."""
        self._plan = plan

    def receive(self, waiting: Callable[[], None]) -> str:
        """The others: the plan, as soon as there is one.

        `waiting` is called about five times a second and may raise. LatentCliError where the leader
        failed, with its message, or is gone; Interrupted where it was interrupted.
        """
        return self._plan

    def claim(self) -> int:
        """The next of 0, 1, 2, ...; each is given to one rank only. Errors as of `check`."""
        with self._lock:
            return next(self._numbers)

    def claimed(self, units: Sequence[int]) -> Iterator[int]:
        """Those of some units that this process gets, one at a time as it asks for them.

        All ranks must name the same ones.
        """
        while (number := self.claim()) < len(units):
            yield units[number]

    def report(self, text: str) -> None:
        """The others, once and before they are done: gives the leader what it is to know."""
        self._reports.append(text)

    def reports(self) -> list[str]:
        """The leader, when all are done: what they gave, by rank."""
        return list(self._reports)

    def tell(self, text: str) -> None:
        """The others, any time: gives the leader what it may want to know."""
        with self._lock:
            self._told.append(text)

    def told(self) -> list[str]:
        """The leader: what they told since it last asked, each text once."""
        with self._lock:
            found, self._told = self._told, []
        return found

    def progress(self, done: int, failed: int) -> tuple[int, int]:
        """Adds what this rank has done; what the whole job has, as a Meter shows it."""
        return self.add("done", done), self.add("bad", failed)

    def add(self, name: str, amount: int) -> int:
        """Adds to a total of the whole job; the new total."""
        with self._lock:
            self._totals[name] = self._totals.get(name, 0) + amount
            return self._totals[name]

    def total(self, name: str) -> int:
        """A total of the whole job."""
        return self.add(name, 0)

    def check(self) -> None:
        """LatentCliError where the leader failed or is gone, Interrupted where a rank was."""

    def done(self, error: str | None = None, code: int = 0) -> None:
        """This rank is through; `error` says why it stopped early.

        The first call counts, and the first with an error.
        """

    def wait_for_all(self, waiting: Callable[[], None]) -> None:
        """The leader: returns when all other ranks are done.

        LatentCliError names a rank that failed or is gone; Interrupted one that was interrupted.
        """

    def close(self) -> None:
        """Leaves the team."""
