"""A tar stream on standard input in, a latent store out: units are cut from it as it comes."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from latentcli.core.errors import StoreError, UsageError
from latentcli.core.types import InputRow
from latentcli.jobs.cluster.team import Solo
from latentcli.jobs.config import EncodeJob
from latentcli.jobs.encode.document import Counts, document
from latentcli.jobs.encode.plan import plan_encode
from latentcli.jobs.encode.run import EncodeRun, run_of
from latentcli.jobs.encode.sinks import commit
from latentcli.jobs.encode.to_stdout import checker, feed, media_of_stdin
from latentcli.jobs.encode.unit import EncodedUnit
from latentcli.jobs.encode.worklist import Work
from latentcli.jobs.inference.engine import Engine
from latentcli.jobs.loader.tar_tasks import Known
from latentcli.jobs.runtime.reporter import Reporter
from latentcli.jobs.runtime.signals import StopRequest
from latentcli.jobs.runtime.stdio import STDIN
from latentcli.latents.stats import ChannelSums
from latentcli.shards.layout import INPUTS, SHARDS, recorded_units
from latentcli.shards.storage.paths import AnyPath
from latentcli.shards.store.commit import read_record
from latentcli.shards.store.input_list import InputList, write_inputs
from latentcli.shards.store.lock import StoreLock
from latentcli.shards.store.manifest import Manifest, read_manifest, write_manifest
from latentcli.shards.store.writer import finish, open_for_writing


@dataclass(slots=True)
class Begun:
    """A store that is complete until the first unit goes into it."""

    store: AnyPath
    manifest: Manifest
    """That of a store that is being written."""
    lock: StoreLock
    written: bool = False

    def commit(self, run: EncodeRun, unit: EncodedUnit) -> None:
        """`commit`, behind a manifest that says that the store is not complete."""
        self.lock.check()
        if not self.written:
            write_manifest(self.store, self.manifest)
            self.written = True
        commit(run, unit)


def encode_stdin(
    job: EncodeJob, engine: Engine, stop: StopRequest, reporter: Reporter
) -> dict[str, Any]:
    """A tar stream on standard input to a store; the --json document.

    Every so many samples are a unit. The same stream once more goes on where the job stopped:
    samples of units that are done are read and passed over. StoreError for another stream, before
    anything of it is committed.
    """
    began = time.perf_counter()
    media = media_of_stdin(job)
    if media == "clips":
        raise UsageError(
            "A store of clips cannot be made from standard input: write the stream to a .tar file"
            " first, or to standard output (-o -)."
        )
    plan = plan_encode(job, engine, media, stream=True)
    store = plan.store
    with StoreLock(store) as lock, tempfile.TemporaryDirectory(prefix="latentcli-") as folder:
        open_for_writing(store, plan.manifest)
        manifest = replace(read_manifest(store), status="running")
        write_inputs(Path(folder) / INPUTS, [InputRow("", STDIN, 0)])
        inputs = InputList.open(Path(folder) / INPUTS)
        sink = Begun(store, manifest, lock).commit
        run = run_of(job, engine, plan, manifest, inputs, range(1), Solo(), stop, reporter, sink)
        run = replace(run, first=checker(run))
        tars = run.tars
        assert tars is not None
        tars.split = plan.samples_per_shard
        tars.known = partial(known_of, run)
        feed(run)
        units = tars.units
        check_end(store, units)
        lock.check()
        rows = (InputRow(f"stdin/{unit:06d}", STDIN, unit) for unit in range(units))
        write_inputs(store / INPUTS, rows)
        counts = Counts(frozenset(range(units)) - tars.passed)
        final = finish(store, manifest, units, ChannelSums(), counts.add)
        work = Work(InputList.open(store / INPUTS), (), 0)
        told = document(run, work, final, counts, time.perf_counter() - began)
        return told | {"tars": None}


def known_of(run: EncodeRun, unit: int) -> Known:
    """What the store has of a unit; nothing where its record is damaged or not there."""
    store = run.plan.store
    try:
        record = read_record(store, unit)
    except StoreError:
        return Known()
    try:
        sound = (store / SHARDS / record.shard).stat().st_size == record.bytes
    except OSError:
        sound = False
    retried = run.job.retry == "failed" and record.failed > 0
    last = record.rows[-1] if record.rows else None
    return Known(
        keys=[row.key for row in record.rows],
        done=sound and not retried and record.spec_hash == run.manifest.spec_hash,
        cut=last is not None and last.status == "failed" and last.stage == "read",
    )


def check_end(store: AnyPath, units: int) -> None:
    """StoreError where a store has more units than its stream had now."""
    beyond = sum(unit >= units for unit in recorded_units(store))
    if beyond:
        raise StoreError(
            f"{store} has {beyond:,} shard{'' if beyond == 1 else 's'} more than this stream has"
            " samples for: it was begun with a longer one. Give the whole stream, or choose another"
            " output folder (-o)."
        )
