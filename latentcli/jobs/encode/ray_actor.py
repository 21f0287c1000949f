"""Encodes units in the actors of a Ray cluster, which a ledger gives them."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from latentcli.core.errors import Interrupted, UsageError
from latentcli.jobs.cluster.environment import Rank
from latentcli.jobs.cluster.team import Team
from latentcli.jobs.config import EncodeJob
from latentcli.jobs.encode.plan import with_model_defaults
from latentcli.jobs.encode.run import EncodeRun
from latentcli.jobs.encode.share import claimed, follow
from latentcli.jobs.inference.accelerator import ACCELERATORS
from latentcli.jobs.inference.engine import engine_of
from latentcli.jobs.runtime.signals import StopRequest
from latentcli.shards.layout import SHARDS
from latentcli.shards.storage.paths import AnyPath
from latentcli.shards.store.input_list import InputList
from latentcli.shards.store.unit_state import DONE, file_sizes, unit_state

LOOK = 0.5
"""Seconds between two looks at each other of the driver and its actors."""
CPUS_PER_ACTOR = 4
"""On a cluster without GPUs, where nobody said how many actors there should be."""


@dataclass(slots=True)
class Ledger:
    """Which units are left, and who has which; runs as an actor of its own.

    Ray itself restarts an actor that died and calls its `work` again. What it had is written here,
    and so are the totals that --max-bad and the display need while units are under way.
    """

    left: deque[int]
    plan: str
    given: dict[str, list[int]] = field(default_factory=dict)
    totals: dict[str, int] = field(default_factory=dict)
    restarts: int = 0
    told: list[str] = field(default_factory=list)
    """What actors told of units, and the driver has yet to hear."""
    stopped: bool = False

    def begin(self, actor: str) -> list[int]:
        """An actor begins, for the first time or again; the units that it got before."""
        self.restarts += actor in self.given
        return self.given.setdefault(actor, [])

    def claim(self, actor: str) -> int | None:
        """A unit for an actor; None where none is left."""
        if self.stopped or not self.left:
            return None
        unit = self.left.popleft()
        self.given[actor].append(unit)
        return unit

    def add(self, name: str, amount: int) -> int:
        """Adds to a total of the whole job; the new total."""
        self.totals[name] = self.totals.get(name, 0) + amount
        return self.totals[name]

    def state(self) -> tuple[int, dict[str, int], int]:
        """(units left, totals, restarts of actors)."""
        return len(self.left), self.totals, self.restarts

    def tell(self, text: str) -> None:
        """Keeps what an actor tells the driver."""
        self.told.append(text)

    def hear(self) -> list[str]:
        """What was told since this was last asked for."""
        told, self.told = self.told, []
        return told

    def assignment(self) -> str:
        """What every actor works by."""
        return self.plan

    def stop(self) -> None:
        """No more units are given out."""
        self.stopped = True

    def is_stopped(self) -> bool:
        """Whether the job is being stopped."""
        return self.stopped


@dataclass
class RayTeam(Team):
    """The ledger as an actor sees it; the driver looks after all else that a team does."""

    name: str = ""
    ledger: Any = None
    units: int = 0
    """To do, of the whole job."""

    def _ask(self, method: str, *words: object) -> Any:
        import ray

        return ray.get(getattr(self.ledger, method).remote(*words))

    def receive(self, waiting: Callable[[], None]) -> str:
        """The assignment."""
        return str(self._ask("assignment"))

    def claim(self) -> int:
        """The place of the next unit among those to do; beyond the last where none is left."""
        number = self._ask("claim", self.name)
        return self.units if number is None else int(number)

    def add(self, name: str, amount: int) -> int:
        """Adds to a total of the whole job; the new total."""
        return int(self._ask("add", name, amount))

    def tell(self, text: str) -> None:
        """Gives the driver what it may want to know."""
        self._ask("tell", text)


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


def resource_of(job: EncodeJob) -> str:
    """What Ray gives an actor one of: a GPU, or a CPU."""
    return "GPU" if ACCELERATORS[job.device].gpu else "CPU"


def wanted_actors(job: EncodeJob, resources: Mapping[str, float], units: int) -> int:
    """How many actors there should be now; `all` follows the cluster as nodes join."""
    if job.devices not in (None, "all"):
        if not (job.devices or "").isdecimal() or int(job.devices or 0) < 1:
            raise UsageError(
                f"--devices is {job.devices!r}; with --engine ray it is all or a number."
            )
        return min(int(job.devices or 0), max(units, 1))
    resource = resource_of(job)
    have = resources.get(resource, 0)
    return max(1, min(int(have // (1 if resource == "GPU" else CPUS_PER_ACTOR)), units))


def actors_on_node(
    job: EncodeJob, units: int, node: Mapping[str, float], cluster: Mapping[str, float]
) -> int:
    """How many actors share the cores of a node: those of the job, as the node has of the cluster.

    The last two are what each has of Ray's resources.
    """
    resource = resource_of(job)
    part = node.get(resource, 0) / max(cluster.get(resource, 0), 1)
    return max(math.ceil(wanted_actors(job, cluster, units) * part), 1)


def actor_rank(job: EncodeJob, units: int) -> Rank:
    """What an actor is: the driver alone leads, and others share the cores of its node."""
    ray: Any = import_module("ray")
    own = ray.get_runtime_context().get_node_id()
    resources = {each["NodeID"]: each["Resources"] for each in ray.nodes()}
    sharing = actors_on_node(job, units, resources.get(own, {}), ray.cluster_resources())
    return Rank(1, 2, 0, sharing)


def try_model(job: EncodeJob) -> None:
    """Loads the job's model, on a device such as the actors have; errors as of `engine_of`."""
    engine_of(job)


class EncodeActor:
    """One process of the cluster: a model on a device, and units until there are none left."""

    def __init__(self, job: EncodeJob) -> None:
        self.job = job

    def work(self, name: str, ledger: Any, units: int) -> dict[str, Any]:
        """Encodes what the ledger gives, of `units` in all; the stages' seconds and items."""
        import ray

        # Not before: what is wrong with the model is an error of this call, and told as it is.
        engine = engine_of(self.job)
        job = with_model_defaults(self.job, engine)
        stop = LedgerStop("The job was stopped.", ledger=ledger)
        before = ray.get(ledger.begin.remote(name))
        other = (
            "An actor has another latentcli, or other weights, than the driver: install the"
            " same on every node."
        )

        def claims(run: EncodeRun, todo: Sequence[int]) -> Iterator[int]:
            store, spec_hash = run.plan.store, run.manifest.spec_hash
            again = [todo[number] for number in before]
            yield from unfinished(store, spec_hash, run.inputs, again, run.parts)
            yield from claimed(run, todo)

        rank = actor_rank(job, units)
        team = RayTeam(rank, name=name, ledger=ledger, units=units)
        return follow(job, engine, team, stop, other, claims).meter.report()


def unfinished(
    store: AnyPath,
    spec_hash: str,
    inputs: InputList,
    units: Iterable[int],
    parts: Collection[int] = (),
) -> Iterator[int]:
    """Those of an actor's earlier units that it may not have committed when it died.

    A unit of `parts`, of which only some inputs are encoded, was there before, and does not tell.
    """
    sizes = file_sizes(store / SHARDS)
    for unit in units:
        if unit in parts or unit_state(store, unit, spec_hash, inputs, sizes).state != DONE:
            yield unit
