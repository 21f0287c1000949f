"""Joins several processes to a team: unit numbers, totals and one plan in a shared store.

The store is torch's TCPStore, without a process group: the launcher serves it, or rank 0 does.
Every rank raises a counter there twice a second, so the others notice when it is gone.
"""

from __future__ import annotations

import json
import platform
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from latentcli.core.errors import Interrupted, LatentCliError, LeaderFailed, UsageError
from latentcli.jobs.cluster.environment import Rank, conclusion, rendezvous_of
from latentcli.jobs.cluster.missing_ranks import MissingRanks
from latentcli.jobs.cluster.rendezvous import POLL, connect
from latentcli.jobs.cluster.team import Team
from latentcli.jobs.runtime.meter import ignore

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]

SILENCE = 60.0
"""Seconds after which a process that was not heard of counts as gone."""
LINGER = 30.0
"""Seconds that a process which stops early stays, so that the others can learn why."""
PART = 1 << 20
"""Characters of a text per value: the server refuses values above 8 MiB."""
ADVICE = "run the same command again to finish the rest"


@dataclass(slots=True)
class Pulse:
    """When a rank's counter last rose, by the clock of the process that looks."""

    silence: float
    count: int = -1
    since: float = field(default_factory=time.monotonic)

    def gone(self, count: int) -> bool:
        """Whether the counter, which stands at `count`, has not risen for too long."""
        now = time.monotonic()
        if count != self.count:
            self.count, self.since = count, now
        return now - self.since > self.silence


class TcpTeam(Team):
    """A team of several processes, as one of them has it."""

    def __init__(
        self,
        rank: Rank,
        store: Store,
        silence: float = SILENCE,
        missing: MissingRanks | None = None,
    ) -> None:
        self.rank = rank
        self._store = store
        self._silence = silence
        self._missing = missing or MissingRanks()
        self._lock = threading.Lock()
        self._telling = threading.Lock()
        """Held while texts are numbered, or asked for."""
        self._heard = [0] * rank.world
        """Texts of each rank that were told, here or there."""
        self._lost: LatentCliError | None = None
        self._end: tuple[str | None, int] | None = None
        self._closing = threading.Event()
        self._call("set", f"host/{rank.rank}", platform.node())
        self._beats = threading.Thread(target=self._beat, name="team", daemon=True)
        self._beats.start()

    def broadcast(self, plan: str) -> None:
        self._put("plan", plan)

    def receive(self, waiting: Callable[[], None]) -> str:
        while not self._has("plan"):
            self.check()
            end = self._end_of(0)
            if end is not None and not self._has("plan"):
                idle = LatentCliError(f"{self._name(0)} has ended before it gave out any work.")
                raise self._failure(0, *end) or idle
            waiting()
            time.sleep(POLL)
        return self._whole("plan")

    def let_leader_tell(self, waiting: Callable[[], None]) -> None:
        """Where this rank failed: LeaderFailed if the leader does so too before it has a plan.

        What all of them find is told once then. It is waited for half a minute at most.
        """
        until = time.monotonic() + LINGER
        while not self._has("plan") and time.monotonic() < until:
            end = self._end_of(0)
            if end is not None:
                if failure := self._failure(0, *end):
                    raise failure
                return  # it has ended, and has nothing to tell
            waiting()
            time.sleep(POLL)

    def report(self, text: str) -> None:
        self._put(f"report/{self.rank.rank}", text)

    def reports(self) -> list[str]:
        names = [f"report/{rank}" for rank in range(1, self.rank.world)]
        return [self._whole(name) for name in names if self._has(name)]

    def tell(self, text: str) -> None:
        rank = self.rank.rank
        with self._telling:
            self._put(f"told/{rank}/{self._heard[rank]}", text)
            self._heard[rank] += 1

    def told(self) -> list[str]:
        found = []
        with self._telling:
            for rank in range(1, self.rank.world):
                while self._has(name := f"told/{rank}/{self._heard[rank]}"):
                    found.append(self._whole(name))
                    self._heard[rank] += 1
        return found

    def claim(self) -> int:
        self.check()
        return self.add("claims", 1) - 1

    def add(self, name: str, amount: int) -> int:
        return self._add(f"total/{name}", amount)

    def check(self) -> None:
        if self._lost is not None:
            raise self._lost

    def done(self, error: str | None = None, code: int = 0) -> None:
        if self._end is not None and (error is None or self._end[0] is not None):
            return
        self._end = error, code
        with suppress(LatentCliError):  # whoever would read it is gone
            self._call("set", f"done/{self.rank.rank}", json.dumps([error, code]))
            if code == Interrupted.exit_code:
                self._call("set", "stopped", str(self.rank.rank))

    def wait_for_all(self, waiting: Callable[[], None]) -> None:
        failures = []
        pulses = self._pulses()
        while pulses:
            for rank in list(pulses):
                end = self._end_of(rank)
                if end is None and not pulses[rank].gone(self._add(f"beat/{rank}", 0)):
                    continue
                del pulses[rank]
                failure = self._silent(rank) if end is None else self._failure(rank, *end)
                failures += [failure] if failure else []
            waiting()
            time.sleep(POLL if pulses else 0)
        if failures:
            # An error is what a person must see to; an interruption only wants the command again.
            raise min(failures, key=lambda failure: isinstance(failure, Interrupted))

    def close(self) -> None:
        # Launchers kill all processes when one ends with an error. So one that was interrupted
        # stays until the others are through too, and so does a leader that they ask for the reason.
        error, code = self._end or (None, 0)
        if code == Interrupted.exit_code or (error is not None and self.rank.leader):
            with suppress(LatentCliError):
                self._linger()
        self._closing.set()
        self._beats.join()

    def _linger(self) -> None:
        until = time.monotonic() + LINGER
        pulses = self._pulses()
        while pulses and time.monotonic() < until:
            for rank in list(pulses):
                if self._has(f"done/{rank}") or pulses[rank].gone(self._add(f"beat/{rank}", 0)):
                    del pulses[rank]
            time.sleep(POLL)

    def _pulses(self) -> dict[int, Pulse]:
        others = set(range(self.rank.world)) - {self.rank.rank}
        return {rank: Pulse(self._silence) for rank in sorted(others)}

    def _beat(self) -> None:
        leader = Pulse(self._silence)
        try:
            while True:
                self._add(f"beat/{self.rank.rank}", 1)
                if self.rank.leader and self._missing.due:
                    self._missing.tell(self.rank.world, self._absent())
                self._lost = self._lost or self._trouble(leader)
                if self._closing.wait(min(0.5, self._silence / 10)):
                    return
        except LatentCliError as error:
            self._lost = self._lost or error

    def _absent(self) -> list[int]:
        """Ranks that have never been here."""
        return [rank for rank in range(self.rank.world) if not self._has(f"host/{rank}")]

    def _trouble(self, leader: Pulse) -> LatentCliError | None:
        """What keeps this rank from going on."""
        if not self.rank.leader:
            end = self._end_of(0)
            if end is None and leader.gone(self._add("beat/0", 0)):
                return self._silent(0)
            failure = self._failure(0, *end) if end else None
            if failure:
                return failure
        if self._has("stopped"):
            rank = int(self._text("stopped"))
            return self._failure(rank, *(self._end_of(rank) or ("", 1)))
        return None

    def _end_of(self, rank: int) -> tuple[str | None, int] | None:
        if not self._has(f"done/{rank}"):
            return None
        error, code = json.loads(self._text(f"done/{rank}"))
        return error, code

    def _failure(self, rank: int, error: str | None, code: int) -> LatentCliError | None:
        if error is None:
            return None
        interrupted = code == Interrupted.exit_code
        verb = "was interrupted" if interrupted else "failed"
        message = f"{self._name(rank)} {verb}: {error}"
        if "same command" not in message:
            message = f"{message.rstrip('.')}; {ADVICE}."
        if interrupted:
            return Interrupted(message)
        return LatentCliError(message) if rank else LeaderFailed(message)

    def _silent(self, rank: int) -> LatentCliError:
        why = self._missing.why if rank in self._absent() else ""
        heard = f"{self._name(rank)} has sent no heartbeat for {self._silence:g} s"
        return LatentCliError(f"{heard}. {why} Or {ADVICE}." if why else f"{heard}; {ADVICE}.")

    def _name(self, rank: int) -> str:
        host = f" on {self._text(f'host/{rank}')}" if self._has(f"host/{rank}") else ""
        return f"Rank {rank} of {self.rank.world}{host}"

    def _add(self, key: str, amount: int) -> int:
        return int(self._call("add", key, amount))

    def _has(self, key: str) -> bool:
        return bool(self._call("check", [key]))

    def _text(self, key: str) -> str:
        text: str = self._call("get", key).decode()
        return text

    def _put(self, key: str, text: str) -> None:
        """Stores a text in parts; its key is there once all of them are."""
        parts = [text[start : start + PART] for start in range(0, len(text), PART)]
        for index, part in enumerate(parts):
            self._call("set", f"{key}/{index}", part)
        self._call("set", key, str(len(parts)))

    def _whole(self, key: str) -> str:
        return "".join(self._text(f"{key}/{index}") for index in range(int(self._text(key))))

    def _call(self, method: str, *args: Any) -> Any:
        try:
            with self._lock:
                return getattr(self._store, method)(*args)
        except RuntimeError as error:  # torch's DistError is one
            raise LatentCliError(
                f"Rank {self.rank.rank} of {self.rank.world} has lost its connection to the"
                f" others: rank 0, or the launcher, has ended; {ADVICE}."
            ) from error


@contextmanager
def join_team(
    rank: Rank,
    environment: Mapping[str, str],
    waiting: Callable[[], None] = lambda: None,
    note: Callable[[str], object] = ignore,
) -> Iterator[Team]:
    """The team of this process; an error that ends the block is passed to the others.

    `waiting` is called about five times a second until the leader is there, and may raise; `note`
    is told of ranks that do not come. LatentCliError where the processes do not find each other
    within ten minutes.
    """
    if rank.world == 1:
        yield Team(rank)
        return
    missing = MissingRanks(conclusion(environment), note)
    silence, at = silence_of(environment), rendezvous_of(environment)
    store = connect(rank, at, waiting if rank.leader else missing.watching(waiting, rank.world))
    team = TcpTeam(rank, store, silence, missing)
    try:
        with leader_first(team, waiting):
            yield team
    except BaseException as error:
        message = str(error) or f"An unexpected {type(error).__name__}."
        team.done(message, getattr(error, "exit_code", 1))
        raise
    else:
        team.done()
    finally:
        team.close()


@contextmanager
def leader_first(team: TcpTeam, waiting: Callable[[], None]) -> Iterator[None]:
    """An error within the block gives way to that of the leader, as of `let_leader_tell`."""
    try:
        yield
    except (Interrupted, LeaderFailed):
        raise
    except LatentCliError:
        if not team.rank.leader:
            try:
                team.let_leader_tell(waiting)
            except (Interrupted, LeaderFailed):
                raise
            except LatentCliError:
                pass  # the leader is gone, and tells nothing
        raise


def silence_of(environment: Mapping[str, str]) -> float:
    """LATENTCLI_SILENCE_SECONDS, or a minute."""
    text = environment.get("LATENTCLI_SILENCE_SECONDS", str(SILENCE))
    with suppress(ValueError):
        if float(text) > 0:
            return float(text)
    raise UsageError(f"LATENTCLI_SILENCE_SECONDS is {text!r}; give seconds, such as 60.")
