"""A planned encode job and its place in a team in; what its stream works with out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from latentcli.core.types import Picture
from latentcli.jobs.cluster.team import Team
from latentcli.jobs.config import EncodeJob
from latentcli.jobs.encode.plan import EncodePlan
from latentcli.jobs.encode.unit import EncodedUnit
from latentcli.jobs.inference.engine import Engine
from latentcli.jobs.inference.split_on_oom import SplitOnOom
from latentcli.jobs.loader.find_media import SUFFIXES
from latentcli.jobs.loader.loader import MANY, pick_workers
from latentcli.jobs.loader.prepare import Intake
from latentcli.jobs.loader.tar_tasks import TarIntake
from latentcli.jobs.runtime.bottleneck import ThreadGroup
from latentcli.jobs.runtime.meter import Meter
from latentcli.jobs.runtime.reporter import SILENT, Reporter
from latentcli.jobs.runtime.signals import StopRequest
from latentcli.jobs.runtime.stdio import STDOUT
from latentcli.shards.store.input_list import InputList
from latentcli.shards.store.manifest import Manifest


@dataclass(frozen=True, slots=True)
class EncodeRun:
    """What the stream works with."""

    job: EncodeJob
    engine: Engine
    plan: EncodePlan
    manifest: Manifest
    """The store's own, which may name the model in other words than this run does."""
    inputs: InputList
    stop: StopRequest
    meter: Meter
    team: Team
    sink: Callable[[EncodeRun, EncodedUnit], None]
    """Where an encoded unit goes."""
    workers: int = 0
    """Loader processes."""
    tars: TarIntake | None = None
    """Where inputs are tars, what reads them."""
    progressed: Callable[[EncodeRun, EncodedUnit], None] | None = None
    """Is told when more of a unit is encoded, in the thread of the sink."""
    first: Callable[[Sequence[Picture]], None] | None = None
    """Is given the first batch before it is encoded."""
    split_on_oom: SplitOnOom = field(default_factory=SplitOnOom)
    """How many pictures the device takes at once."""
    held: Callable[[], None] = lambda: None
    """StoreError where the store is another job's by now; asked before a unit is committed."""
    reporter: Reporter = SILENT

    def check(self) -> None:
        """Interrupted or LatentCliError where the job is to stop here, or has stopped elsewhere."""
        self.stop.check()
        self.team.check()

    @property
    def intake(self) -> Intake:
        return Intake(self.inputs, self.plan.recipe)

    @property
    def spilled_to(self) -> Path | None:
        """The store for what does not fit into memory; None (the system's folder) if remote."""
        store = self.plan.store
        return store if isinstance(store, Path) and self.job.output != STDOUT else None


def run_of(
    job: EncodeJob,
    engine: Engine,
    plan: EncodePlan,
    manifest: Manifest,
    inputs: InputList,
    todo: Sequence[int],
    team: Team,
    stop: StopRequest,
    reporter: Reporter,
    sink: Callable[[EncodeRun, EncodedUnit], None],
) -> EncodeRun:
    """What the stream of this process works with."""
    total = sum(inputs.count(unit) for unit in todo)
    workers = pick_workers(job.workers, MANY if plan.tars else total, team.rank.sharing)
    counted = not plan.tars and plan.clips is None
    meter = Meter(
        "encode",
        total if counted else None if plan.tars else 0,
        reporter.progress,
        workers=workers,
        noun="images" if plan.clips is None else "frames",
        device=engine.device.type,
        lanes={"read": 1} if plan.tars else {},
        crews=() if plan.clips is None else (ThreadGroup(("encode", "write")),),
        ranks=team.rank.world,
        shared=team_totals(team) if team.rank.world > 1 else None,
    )
    return EncodeRun(
        *(job, engine, plan, manifest, inputs, stop, meter, team, sink),
        tars=TarIntake(SUFFIXES[plan.media], meter, check=stop.check) if plan.tars else None,
        workers=workers,
        split_on_oom=SplitOnOom(reporter.note),
        reporter=reporter,
    )


def team_totals(team: Team) -> Callable[[int, int], tuple[int, int]]:
    """How a meter learns what the whole team has done."""
    return lambda done, failed: (team.add("done", done), team.add("bad", failed))
