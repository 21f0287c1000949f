"""What runs in the actors of a Ray cluster: the ledger of units, and the encode stream."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from latentcli.core.errors import Interrupted, LatentCliError
from latentcli.jobs.cluster.environment import Rank
from latentcli.jobs.config import EncodeJob
from latentcli.jobs.encode.plan import plan_encode, with_model_defaults
from latentcli.jobs.encode.run import run_of
from latentcli.jobs.encode.share import assigned, encode_share
from latentcli.jobs.encode.sinks import commit
from latentcli.jobs.inference.engine import engine_of
from latentcli.jobs.runtime.reporter import SILENT
from latentcli.jobs.runtime.signals import StopRequest
from latentcli.shards.layout import INPUTS
from latentcli.shards.store.input_list import InputList
from latentcli.shards.store.manifest import read_manifest

LOOK = 0.5
"""Seconds between two looks at each other of the driver and its actors."""
FOLLOWER = Rank(1, 2, 0)
"""What every actor is: the driver alone leads."""


@dataclass(slots=True)
class Ledger:
    """Which units are left, and who has which; runs as an actor of its own."""

    left: deque[int]
    plan: str
    given: dict[str, list[int]] = field(default_factory=dict)
    totals: dict[str, int] = field(default_factory=dict)
    stopped: bool = False

    def claim(self, actor: str) -> int | None:
        """A unit for an actor; None where none is left."""
        if self.stopped or not self.left:
            return None
        unit = self.left.popleft()
        self.given.setdefault(actor, []).append(unit)
        return unit

    def taken_by(self, actor: str) -> list[int]:
        """The units that an actor got so far, which are its own no longer."""
        return self.given.pop(actor, [])

    def give_back(self, units: Sequence[int]) -> None:
        """Units that are to be done by somebody else."""
        self.left.extendleft(reversed(units))

    def add(self, name: str, amount: int) -> int:
        """Adds to a total of the whole job; the new total."""
        self.totals[name] = self.totals.get(name, 0) + amount
        return self.totals[name]

    def state(self) -> tuple[int, dict[str, int]]:
        """(units left, totals)."""
        return len(self.left), self.totals

    def told(self) -> str:
        """The plan that every actor works by."""
        return self.plan

    def stop(self) -> None:
        """No more units are given out."""
        self.stopped = True

    def is_stopped(self) -> bool:
        """Whether the job is being stopped."""
        return self.stopped


@dataclass
class RayTeam:
    """The ledger as an actor sees it: the team that the encode stream works in."""

    name: str
    ledger: Any
    world: int
    rank: Rank = FOLLOWER

    def _ask(self, method: str, *words: object) -> Any:
        import ray

        return ray.get(getattr(self.ledger, method).remote(*words))

    def broadcast(self, plan: str) -> None:
        """The driver does it."""

    def receive(self, waiting: Callable[[], None]) -> str:
        """The plan."""
        return str(self._ask("told"))

    def claim(self) -> int:
        """The place of the next unit among those to do; beyond the last where none is left."""
        number = self._ask("claim", self.name)
        return self.world if number is None else int(number)

    def add(self, name: str, amount: int) -> int:
        """Adds to a total of the whole job."""
        return int(self._ask("add", name, amount))

    def total(self, name: str) -> int:
        """A total of the whole job."""
        return int(self._ask("add", name, 0))

    def check(self) -> None:
        """The driver looks after failures."""

    def done(self, error: str | None = None, code: int = 0) -> None:
        """The driver hears of it by itself."""

    def wait_for_all(self, waiting: Callable[[], None]) -> None:
        """The driver does it."""

    def close(self) -> None:
        """Nothing is open."""


@dataclass
class LedgerStop(StopRequest):
    """A stop that comes from the driver; it is asked for twice a second at most."""

    ledger: Any = None
    asked: float = 0.0

    def check(self) -> None:
        """Interrupted where the job is being stopped."""
        import ray

        now = time.monotonic()
        if now - self.asked >= LOOK:
            self.asked = now
            if ray.get(self.ledger.is_stopped.remote()):
                raise Interrupted(self.advice)


class EncodeActor:
    """One process of the cluster: a model on a device, and units until there are none left."""

    def __init__(self, job: EncodeJob) -> None:
        self.engine = engine_of(job)
        self.job = with_model_defaults(job, self.engine)

    def work(self, name: str, ledger: Any) -> dict[str, Any]:
        """Encodes what the ledger gives; the stages' seconds and items."""
        stop = LedgerStop("The job was stopped.", ledger=ledger)
        team = RayTeam(name, ledger, 0)
        media, tars, store, todo = assigned(team.receive(stop.check))
        team.world = len(todo)
        plan = plan_encode(replace(self.job, output=store), self.engine, media, tars=tars)
        manifest = read_manifest(plan.store)
        if manifest.spec_hash != plan.manifest.spec_hash:
            raise LatentCliError(
                "An actor has another latentcli, or other weights, than the driver: install the"
                " same on every node."
            )
        inputs = InputList.open(plan.store / INPUTS)
        run = run_of(
            self.job, self.engine, plan, manifest, inputs, todo, team, stop, SILENT, commit
        )
        encode_share(run, todo)
        return run.meter.report()
