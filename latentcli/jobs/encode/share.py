"""Opens, fills and finishes the store of an encode job, for every process that has a part in it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import torch

from latentcli.core.errors import StoreError
from latentcli.jobs.cluster.team import Team
from latentcli.jobs.config import EncodeJob
from latentcli.jobs.encode.captions import with_captions
from latentcli.jobs.encode.clip_stream import encode_clips
from latentcli.jobs.encode.document import Counts, document
from latentcli.jobs.encode.failures import FAILED, SEEN
from latentcli.jobs.encode.first_inputs import check_once
from latentcli.jobs.encode.kept import telling_kept
from latentcli.jobs.encode.plan import EncodePlan, plan_encode
from latentcli.jobs.encode.rewrite import rewrite_all
from latentcli.jobs.encode.run import EncodeRun, run_of
from latentcli.jobs.encode.sinks import StoreSink
from latentcli.jobs.encode.stream import encode_fitting, encode_units
from latentcli.jobs.encode.texts import note, note_counts, refresh_texts
from latentcli.jobs.encode.worklist import Work, ask_of, finish_list, plan_work, refuse_commands
from latentcli.jobs.inference.compiled_model import sample_pixels, threads_of
from latentcli.jobs.inference.compiling import check_compiler
from latentcli.jobs.inference.engine import Engine
from latentcli.jobs.loader.clip_frames import ClipInput
from latentcli.jobs.loader.find_media import FoundMedia
from latentcli.jobs.loader.packed_reader import PackedReader, rows_of
from latentcli.jobs.runtime.reporter import SILENT, Reporter
from latentcli.jobs.runtime.signals import StopRequest
from latentcli.latents.stats import ChannelSums
from latentcli.shards.layout import INPUTS
from latentcli.shards.storage.paths import path_of
from latentcli.shards.store.commit import CommitRecord
from latentcli.shards.store.input_list import InputList
from latentcli.shards.store.lock import StoreLock
from latentcli.shards.store.manifest import FORMAT_VERSION, Manifest, read_manifest, write_manifest
from latentcli.shards.store.rebuilt_list import is_list_lost, rebuild_inputs
from latentcli.shards.store.roots import Roots, read_roots
from latentcli.shards.store.writer import StoreSums, finish, open_for_writing


@contextmanager
def opened_store(plan: EncodePlan, reporter: Reporter) -> Iterator[tuple[StoreLock, Manifest]]:
    """The store of a plan, locked and open for writing, and its manifest as it is."""
    with StoreLock(plan.store) as lock:
        if not lock.held:
            reporter.note(f"{plan.store} cannot be locked: check that no other job writes to it.")
        open_for_writing(plan.store, plan.manifest)
        there = read_manifest(plan.store)
        reporter.about(str(plan.store), str(there.model["name"]))
        yield lock, there


def finished_store(
    run: EncodeRun,
    work: Work,
    lock: StoreLock,
    before: Manifest,
    began: float,
    sums: StoreSums | None = None,
    counts: Counts | None = None,
) -> dict[str, Any]:
    """Makes a store complete; the --json document.

    `sums` and `counts` are those of the units that were done before: where no other was to do, all
    records have been read, and once is enough.
    """
    lock.check()
    final, store = before, run.plan.store
    if work.touches or sums is None or counts is None or not sums.are_written(store, before):
        counts = Counts(frozenset(work.todo), work.parts)
        finish_list(store, work)
        units = work.inputs.numbers
        final = finish(store, run.manifest, units, ChannelSums(), counts.add)
    return document(run, work, final, counts, time.perf_counter() - began)


def lead(
    job: EncodeJob,
    engine: Engine,
    plan: EncodePlan,
    found: FoundMedia,
    team: Team,
    stop: StopRequest,
    reporter: Reporter,
    encode: Callable[[EncodeRun, Work], None],
    began: float,
) -> dict[str, Any]:
    """Prepares the store, has `encode` encode the units, and finishes it; the --json document."""
    with opened_store(plan, reporter) as (lock, before):
        if is_list_lost(plan.store):
            reporter.note(rebuild_inputs(plan.store, read_roots(plan.store)).note)
        manifest = replace(before, status="running", format_version=FORMAT_VERSION)
        job = with_captions(job, read_roots(plan.store))
        sums, counts, ask = StoreSums(ChannelSums()), Counts(frozenset(), {}), ask_of(job)

        def seen(record: CommitRecord, roots: Roots) -> None:
            sums.add(record, roots)
            counts.add(record)

        def check() -> None:
            stop.check()
            lock.check()

        reporter.status("Finding what is left to do")
        work = plan_work(
            *(plan.store, manifest.spec_hash, found.inputs, plan.samples_per_shard, ask, reporter),
            seen=seen,
        )
        found.inputs.clear()
        if plan.packed and not job.allow_pipe:
            refuse_commands(rows_of(work.inputs, work.todo))
        if work.touches:
            # A store that is added to is not complete until it is finished again.
            write_manifest(plan.store, manifest)
        for _ in rewrite_all(plan.store, manifest, work.inputs, work.outdated):
            check()
        if work.todo and job.self_check and manifest.self_check is None:
            reporter.status("Checking the model on a few inputs")
            manifest = check_once(manifest, engine, plan, work.inputs, reporter)
        reporter.status("Starting")
        sink = StoreSink(lock.check)
        run = run_of(*(job, engine, plan, manifest, work, team, stop, reporter, sink))
        note_counts(run, work.captions)
        for texts in refresh_texts(
            *(plan.store, manifest, work.inputs, work.texts, run.companions)
        ):
            note(run, texts)
            check()
        with telling_kept(run, work):
            encode(run, work)
        result = finished_store(run, work, lock, before, began, sums, counts)
        return result | {"left_out": found.left_out, "left_out_by": found.left_out_by}


def encode_in_team(run: EncodeRun, work: Work) -> None:
    """Encodes the units together with the other processes of the team, which get to know them."""
    for name, amount in totals_before(work).items():
        run.team.add(name, amount)
    run.team.broadcast(assignment(run.plan, work))
    encode_inputs(run, claimed(run, work.todo))
    run.team.done()

    def waiting() -> None:
        run.stop.check()
        run.hear()
        if run.team.rank.world > 1:
            run.meter.advance(0)

    run.team.wait_for_all(waiting)


def follow(
    job: EncodeJob,
    engine: Engine,
    team: Team,
    stop: StopRequest,
    other: str,
    units_of: Callable[[EncodeRun, Sequence[int]], Iterator[int]],
) -> EncodeRun:
    """The share of a process that does not lead: it has nothing to say and nothing to finish.

    `other` is the StoreError's sentence where it was started with another spec than the leader;
    `units_of` gives its units, of those that are to do.
    """
    fields = json.loads(team.receive(stop.check))
    todo, store = tuple(fields["todo"]), fields["store"]
    parts = {int(unit): tuple(indices) for unit, indices in fields["parts"].items()}
    manifest = read_manifest(path_of(store))
    job = replace(job, output=store)
    if job.compile == "auto":
        job = replace(job, compile=fields["compile"])
        check_compiler(job.compile, engine.accelerator)
    plan = plan_encode(job, engine, fields["media"], fields["kind"], there=manifest.spec)
    if manifest.spec_hash != plan.manifest.spec_hash:
        raise StoreError(other)
    work = Work(InputList.open(plan.store / INPUTS), todo, parts)
    run = run_of(*(job, engine, plan, manifest, work, team, stop, SILENT, StoreSink()))
    encode_inputs(run, units_of(run, todo))
    team.done()
    return run


def assignment(plan: EncodePlan, work: Work) -> str:
    """What the first process tells the others: the units to do are given out one by one."""
    fields = {"media": plan.media, "kind": plan.kind, "store": str(plan.store)} | {
        "todo": list(work.todo),
        "parts": work.parts,
        "compile": "on" if plan.manifest.spec["encode"].get("compile") else "off",
    }
    return json.dumps(fields, separators=(",", ":"))


def totals_before(work: Work) -> dict[str, int]:
    """What a team's totals begin with: --max-bad is of the store, and not of this run."""
    return {FAILED: work.failed, SEEN: work.samples}


def encode_inputs(run: EncodeRun, units: Iterator[int]) -> None:
    """Encodes all inputs of some units, in order."""
    units = warmed_up(run, units)
    if run.plan.clips is None:
        encode_units(run, run.reader.tasks(run.intake, units))
        return
    groups = ((unit, clips_of(run, [unit])) for unit in units)
    if isinstance(run.reader, PackedReader) and run.reader.split is not None:
        # Of a stream, each clip goes out as soon as it is done.
        groups = ((number, iter([clip])) for number, clip in enumerate(clips_of(run, units)))
    encode_clips(run, groups)


def warmed_up(run: EncodeRun, units: Iterator[int]) -> Iterator[int]:
    """The units, of which the first comes once the code of --compile is made."""
    first = next(units, None)
    if first is None:
        return
    if run.engine.compiled is not None:
        with run.stop.at_once():
            for piece in sorted(run.engine.compiled.pieces):
                # Pictures that do not fit fail later, each by its name.
                with threads_of(piece), suppress(torch.OutOfMemoryError):
                    keys = [str(number) for number in range(piece.count)]
                    encode_fitting(run, sample_pixels(piece), keys)
        run.reporter.status("Starting")
    yield first
    yield from units


def clips_of(run: EncodeRun, units: Iterable[int]) -> Iterator[ClipInput]:
    """The clips of some units that are to be encoded, in order."""
    for unit in units:
        rows = run.inputs.rows(unit)
        for row in [rows[i] for i in run.parts[unit]] if unit in run.parts else rows:
            yield from run.reader.clips(row)


def claimed(run: EncodeRun, todo: Sequence[int]) -> Iterator[int]:
    """The units that this process gets, one at a time as it asks for them."""
    return run.team.claimed(todo)
