"""Does one process's share of an encode job, as the leader or as a follower."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from latentcli.core.errors import StoreError
from latentcli.jobs.cluster.team import Team
from latentcli.jobs.config import EncodeJob
from latentcli.jobs.encode.clip_stream import clip_inputs, encode_clips
from latentcli.jobs.encode.document import Counts, document
from latentcli.jobs.encode.dry_run import plan_document
from latentcli.jobs.encode.failures import FAILED, SEEN
from latentcli.jobs.encode.first_inputs import check_once
from latentcli.jobs.encode.plan import EncodePlan, plan_encode, with_model_defaults
from latentcli.jobs.encode.run import EncodeRun, run_of
from latentcli.jobs.encode.sinks import commit
from latentcli.jobs.encode.stream import encode_units
from latentcli.jobs.encode.worklist import Work, plan_work
from latentcli.jobs.inference.engine import Engine, engine_of
from latentcli.jobs.loader.find_media import FoundMedia, check_clip_options, find_media
from latentcli.jobs.loader.prepare import unit_tasks
from latentcli.jobs.loader.tar_tasks import refuse_commands
from latentcli.jobs.runtime.reporter import SILENT, Reporter
from latentcli.jobs.runtime.signals import StopRequest
from latentcli.latents.stats import ChannelSums
from latentcli.shards.layout import INPUTS
from latentcli.shards.store.input_list import InputList
from latentcli.shards.store.lock import StoreLock
from latentcli.shards.store.manifest import Manifest, read_manifest, write_manifest
from latentcli.shards.store.writer import StoreSums, finish, open_for_writing


def lead(job: EncodeJob, team: Team, stop: StopRequest, reporter: Reporter) -> dict[str, Any]:
    """The job of the only process, or of the first: it prepares the store and finishes it."""
    began = time.perf_counter()
    found = find_media(job.sources, job.media, reporter, allow_pipe=job.allow_pipe)
    check_clip_options(job, found.media)
    stop.check()
    engine = engine_of(job)
    stop.check()
    job = with_model_defaults(job, engine)
    plan = plan_encode(job, engine, found.media, tars=found.tars)
    if job.dry_run:
        return plan_document(job, engine, plan, found, stop)

    def share(manifest: Manifest, work: Work, held: Callable[[], None]) -> EncodeRun:
        for name, amount in totals_before(work).items():
            team.add(name, amount)
        team.broadcast(assignment(plan, work.todo))
        run = run_of(
            job, engine, plan, manifest, work.inputs, work.todo, team, stop, reporter, commit
        )
        encode_share(replace(run, held=held), work.todo)
        team.done()
        team.wait_for_all(stop.check)
        return run

    return under_lock(job, engine, plan, found, reporter, share, began)


def under_lock(
    job: EncodeJob,
    engine: Engine,
    plan: EncodePlan,
    found: FoundMedia,
    reporter: Reporter,
    share: Callable[[Manifest, Work, Callable[[], None]], EncodeRun],
    began: float,
) -> dict[str, Any]:
    """Prepares the store, has `share` encode the units, and finishes it; the --json document."""
    store = plan.store
    with StoreLock(store) as lock:
        if not lock.held:
            reporter.note(f"{store} cannot be locked: see that no other job writes to it.")
        open_for_writing(store, plan.manifest)
        before = read_manifest(store)
        manifest, sums = replace(before, status="running"), StoreSums(ChannelSums())
        work = plan_work(
            *(store, manifest.spec_hash, found.inputs, plan.samples_per_shard, job.retry, reporter),
            compare=job.compare,
            seen=sums.add,
        )
        found.inputs.clear()
        if plan.tars and not job.allow_pipe:
            refuse_commands(row for unit in work.todo for row in work.inputs.rows(unit))
        if work.todo:
            # A store that is added to is not complete until it is finished again.
            write_manifest(store, manifest)
        if work.todo and job.self_check and manifest.self_check is None:
            manifest = check_once(manifest, engine, plan, work.inputs, reporter)
        run = share(manifest, work, lock.check)
        lock.check()
        counts, final = Counts(frozenset(work.todo)), before
        # Where nothing was to do, all records have been read, and once is enough.
        if work.todo or not sums.are_written(store, before):
            final = finish(store, manifest, work.inputs.units, ChannelSums(), counts.add)
        told = document(run, work, final, counts, time.perf_counter() - began)
        return told | {"left_out": found.left_out}


def follow(job: EncodeJob, team: Team, stop: StopRequest) -> None:
    """The share of a process that is not the first: it has nothing to say and nothing to finish."""
    engine = engine_of(job)
    job = with_model_defaults(job, engine)
    media, tars, store, units = assigned(team.receive(stop.check))
    plan = plan_encode(replace(job, output=store), engine, media, tars=tars)
    manifest = read_manifest(plan.store)
    if manifest.spec_hash != plan.manifest.spec_hash:
        raise StoreError(
            f"Process {team.rank.rank} was started with other options or weights than process 0:"
            " start all of them with the same command."
        )
    inputs = InputList.open(plan.store / INPUTS)
    run = run_of(job, engine, plan, manifest, inputs, units, team, stop, SILENT, commit)
    encode_share(run, units)
    team.done()


def assignment(plan: EncodePlan, todo: Sequence[int]) -> str:
    """What the first process tells the others: the units to do are given out one by one."""
    told = {"media": plan.media, "tars": plan.tars, "store": str(plan.store), "todo": list(todo)}
    return json.dumps(told, separators=(",", ":"))


def assigned(text: str) -> tuple[str, bool, str, tuple[int, ...]]:
    """(media, tars, store, units to do) of an assignment."""
    told = json.loads(text)
    return told["media"], told["tars"], told["store"], tuple(told["todo"])


def totals_before(work: Work) -> dict[str, int]:
    """What a team's totals begin with: --max-bad is of the store, and not of this run."""
    return {FAILED: work.failed, SEEN: work.samples}


def encode_share(run: EncodeRun, todo: Sequence[int]) -> None:
    """Encodes units of `todo` until there are none left; others may take some of them."""
    units = claimed(run.team, todo)
    if run.plan.clips is not None:
        encode_clips(run, ((unit, clip_inputs(run, unit)) for unit in units))
    elif run.tars is not None:
        rows = (row for unit in units for row in run.inputs.rows(unit))
        encode_units(run, run.tars.tasks(rows))
    else:
        encode_units(run, unit_tasks(run.intake, units))


def claimed(team: Team, todo: Sequence[int]) -> Iterator[int]:
    """The units that this process gets, one at a time as it asks for them."""
    while (number := team.claim()) < len(todo):
        yield todo[number]
