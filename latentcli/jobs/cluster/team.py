"""Defines the team of a job's processes: each unit is claimed once, totals are the whole job's.

A job that runs alone has a team of one, so that the job itself knows one way only.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Protocol

from latentcli.core.errors import UsageError
from latentcli.jobs.cluster.environment import Rank, rendezvous_of
from latentcli.jobs.cluster.rendezvous import connect
from latentcli.jobs.cluster.tcp_team import SILENCE, TcpTeam

ALONE = Rank(0, 1, 0)


class Team(Protocol):
    """What the processes of one job do together. Every method may be called from any thread."""

    @property
    def rank(self) -> Rank:
        """This process's rank."""

    def broadcast(self, plan: str) -> None:
        """The leader, once: gives the plan to the others."""

    def receive(self, waiting: Callable[[], None]) -> str:
        """The others: the plan, as soon as there is one.

        `waiting` is called about five times a second and may raise. LatentCliError where the leader
        failed, with its message, or is gone; Interrupted where it was interrupted.
        """

    def claim(self) -> int:
        """The next of 0, 1, 2, ...; each is given to one rank only. Errors as of `check`."""

    def add(self, name: str, amount: int) -> int:
        """Adds to a total of the whole job; the new total."""

    def total(self, name: str) -> int:
        """A total of the whole job."""

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


@dataclass
class Solo:
    """A team of one process."""

    rank: Rank = ALONE
    _plan: str = ""
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _totals: dict[str, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def broadcast(self, plan: str) -> None:
        """Keeps the plan."""
        self._plan = plan

    def receive(self, waiting: Callable[[], None]) -> str:
        """The plan."""
        return self._plan

    def claim(self) -> int:
        """0, 1, 2, ..."""
        with self._lock:
            return next(self._numbers)

    def add(self, name: str, amount: int) -> int:
        """Adds to a total."""
        with self._lock:
            self._totals[name] = self._totals.get(name, 0) + amount
            return self._totals[name]

    def total(self, name: str) -> int:
        """A total."""
        return self._totals.get(name, 0)

    def check(self) -> None:
        """Nobody else can fail."""

    def done(self, error: str | None = None, code: int = 0) -> None:
        """Nobody needs to know."""

    def wait_for_all(self, waiting: Callable[[], None]) -> None:
        """There is nobody to wait for."""

    def close(self) -> None:
        """Nothing is open."""


@contextmanager
def join_team(
    rank: Rank, environment: Mapping[str, str], waiting: Callable[[], None] = lambda: None
) -> Iterator[Team]:
    """The team of this process; an error that ends the block is passed to the others.

    `waiting` is called about five times a second until the leader is there, and may raise.
    LatentCliError where the processes do not find each other within ten minutes.
    """
    if rank.world == 1:
        yield Solo(rank)
        return
    store = connect(rank, rendezvous_of(environment), waiting)
    team = TcpTeam(rank, store, silence_of(environment))
    try:
        yield team
    except BaseException as error:
        message = str(error) or f"An unexpected {type(error).__name__}."
        team.done(message, getattr(error, "exit_code", 1))
        raise
    else:
        team.done()
    finally:
        team.close()


def silence_of(environment: Mapping[str, str]) -> float:
    """LATENTCLI_SILENCE_SECONDS, or a minute."""
    text = environment.get("LATENTCLI_SILENCE_SECONDS", str(SILENCE))
    with suppress(ValueError):
        if float(text) > 0:
            return float(text)
    raise UsageError(f"LATENTCLI_SILENCE_SECONDS is {text!r}; give seconds, such as 60.")
