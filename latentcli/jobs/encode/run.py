"""Gathers what the encode stream of one process works with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from latentcli.core.caption_counts import CaptionCounts
from latentcli.core.types import Picture
from latentcli.jobs.cluster.team import Team
from latentcli.jobs.config import EncodeJob
from latentcli.jobs.encode.captions import companions_of, with_captions
from latentcli.jobs.encode.plan import EncodePlan, jpegs_of
from latentcli.jobs.encode.unit import EncodedUnit
from latentcli.jobs.encode.worklist import Work
from latentcli.jobs.inference.batch_size import batch_elements
from latentcli.jobs.inference.compiling import known_sizes
from latentcli.jobs.inference.engine import Engine, with_code
from latentcli.jobs.inference.jpeg_decoder import JpegDecoder
from latentcli.jobs.inference.split_on_oom import SplitOnOom
from latentcli.jobs.loader.batches import full_batch
from latentcli.jobs.loader.loader import MANY, pick_workers
from latentcli.jobs.loader.prepare import Intake
from latentcli.jobs.loader.reader import Reader
from latentcli.jobs.runtime.background_thread import BackgroundThread
from latentcli.jobs.runtime.machine import cores
from latentcli.jobs.runtime.meter import Meter
from latentcli.jobs.runtime.reporter import Committed, Reporter
from latentcli.jobs.runtime.signals import StopRequest
from latentcli.jobs.runtime.stdio import STDOUT
from latentcli.shards.sources.companions import Companions
from latentcli.shards.store.commit import CommitRecord
from latentcli.shards.store.input_list import InputList
from latentcli.shards.store.manifest import Manifest


class Sink:
    """Where encoded units go."""

    def check(self) -> None:
        """StoreError where the store is another job's by now."""

    def first(self, run: EncodeRun, batch: Sequence[Picture]) -> None:
        """Is shown the first batch of pictures before it is encoded."""

    def advance(self, run: EncodeRun, unit: EncodedUnit, writer: BackgroundThread) -> None:
        """More of a unit's pictures are packed; called in the packer's thread, as is `write`."""

    def write(self, run: EncodeRun, unit: EncodedUnit, writer: BackgroundThread) -> None:
        """All of a unit is packed, or failed: has it written by the writer, and let go of."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class EncodeRun:
    """What the stream works with."""

    job: EncodeJob
    engine: Engine
    plan: EncodePlan
    manifest: Manifest
    """The store's own, which may name the model in other words than this run does."""
    inputs: InputList
    parts: Mapping[int, Sequence[int]]
    """Units of which only some inputs are encoded: the indices of these."""
    stop: StopRequest
    meter: Meter
    team: Team
    sink: Sink
    reader: Reader
    workers: int
    """Loader processes."""
    split_on_oom: SplitOnOom
    """How many pictures the device takes at once."""
    reporter: Reporter
    jpegs: JpegDecoder | None
    """What decodes the files that are prepared as their bytes, where any are."""
    companions: Companions | None
    """What reads the texts beside the inputs; None where none are taken along from there."""
    captions: CaptionCounts = field(default_factory=CaptionCounts)
    """Of the samples that this process encoded."""
    written: set[int] = field(default_factory=set)
    """Units that are written since the job began, as far as the leader has heard."""

    def check(self) -> None:
        """Interrupted or LatentCliError where the job is to stop here, or has stopped elsewhere."""
        self.stop.check()
        self.team.check()

    def committed(self, record: CommitRecord) -> None:
        """Tells whoever follows the job of a unit that this process wrote.

        Those of the other processes come through the leader, which hears of them here.
        """
        counts = record.encoded, record.failed, record.bytes
        told, team = Committed(record.unit, *counts, self.team.rank.rank), self.team
        if not team.rank.leader:
            team.tell(json.dumps(asdict(told)))
            return
        self.written.add(record.unit)
        self.reporter.committed(told)
        self.hear()

    def hear(self) -> None:
        """Tells, in the leader, of the units that other processes wrote since the last time."""
        for text in self.team.told():
            told = Committed(**json.loads(text))
            self.written.add(told.unit)
            self.reporter.committed(told)

    @property
    def intake(self) -> Intake:
        """The inputs and what is done to them, as the loader takes them."""
        return Intake(self.inputs, self.plan.recipe, self.parts)

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
    work: Work,
    team: Team,
    stop: StopRequest,
    reporter: Reporter,
    sink: Sink,
) -> EncodeRun:
    """What the stream of this process works with, to do this work."""
    job = with_captions(job, work.inputs.roots)
    companions = companions_of(job.captions, work.inputs.roots, packed=plan.packed)
    total = work.inputs_to_encode
    workers = pick_workers(
        job.workers, MANY if plan.packed else total, team.rank.sharing, reporter.note
    )
    counted = not plan.packed and plan.clips is None

    meter = Meter(
        "encode",
        total if counted else None if plan.packed else 0,
        reporter.progress,
        workers=workers,
        noun="images" if plan.clips is None else "frames",
        gpu=engine.accelerator.gpu,
        threads={"read": 1} if plan.packed else {},
        ranks=team.rank.world,
        cores=max(cores() // team.rank.sharing, 1),
        shared=team.progress if team.rank.world > 1 else None,
    )
    engine = compiled_engine(job, engine, plan, reporter)
    return EncodeRun(
        *(job, engine, plan, manifest, work.inputs, work.parts, stop, meter, team, sink),
        reader=plan.reader(meter, stop.check),
        workers=workers,
        split_on_oom=SplitOnOom(reporter.note, engine.rooms.get("encode")),
        reporter=reporter,
        jpegs=jpegs_of(engine, plan),
        # That of the survey has the metadata at hand.
        companions=work.companions or companions,
    )


def compiled_engine(job: EncodeJob, engine: Engine, plan: EncodePlan, reporter: Reporter) -> Engine:
    """The engine, with code for the job's full batches where --compile is on."""
    if job.compile != "on":
        return engine
    most = batch_elements(plan.batch_size)
    batches = {
        (width, height): full_batch(3 * width * height, plan.batch_size, most)
        for width, height in known_sizes(plan.recipe.preprocess)
    }
    return with_code(engine, "encode", batches, reporter.status)
