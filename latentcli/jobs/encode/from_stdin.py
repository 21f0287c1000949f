"""Encodes a tar stream on standard input into a store: units are cut from it as it comes."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from latentcli.core.errors import StoreError, UsageError
from latentcli.core.types import InputRow
from latentcli.jobs.cluster.team import Team
from latentcli.jobs.config import EncodeJob
from latentcli.jobs.encode.plan import plan_encode
from latentcli.jobs.encode.run import EncodeRun, run_of
from latentcli.jobs.encode.share import encode_inputs, finished_store, opened_store
from latentcli.jobs.encode.sinks import StoreSink
from latentcli.jobs.encode.to_stdout import media_of_stdin
from latentcli.jobs.encode.worklist import Work
from latentcli.jobs.inference.engine import Engine
from latentcli.jobs.loader.packed_reader import Known
from latentcli.jobs.loader.readers import TarReader
from latentcli.jobs.runtime.reporter import Reporter
from latentcli.jobs.runtime.signals import StopRequest
from latentcli.jobs.runtime.stdio import STDIN
from latentcli.shards.layout import INPUTS, SHARDS, recorded_units
from latentcli.shards.storage.paths import AnyPath
from latentcli.shards.store.commit import read_record
from latentcli.shards.store.input_list import InputList, write_inputs


def encode_stdin(
    job: EncodeJob,
    engine: Engine,
    there: Mapping[str, Any],
    stop: StopRequest,
    reporter: Reporter,
) -> dict[str, Any]:
    """A tar stream on standard input to a store; the --json document.

    Every so many samples are a unit. The same stream once more goes on where the job stopped:
    samples of units that are done are read and passed over. StoreError for another stream, before
    anything of it is committed. `there` is as of `plan_encode`.
    """
    began = time.perf_counter()
    media = media_of_stdin(job)
    if media == "clips":
        raise UsageError(
            "A store of clips cannot be made from standard input: write the stream to a .tar file"
            " first, or to standard output (-o -)."
        )
    plan = plan_encode(job, engine, media, "tars", there=there, stream=True)
    store = plan.store
    with (
        opened_store(plan, reporter) as (lock, before),
        tempfile.TemporaryDirectory(prefix="latentcli-") as folder,
    ):
        manifest = replace(before, status="running")
        write_inputs(Path(folder) / INPUTS, [InputRow("", STDIN, 0)])
        inputs = InputList.open(Path(folder) / INPUTS)
        sink = StoreSink(lock.check, running=manifest)
        work = Work(inputs, (0,))
        run = run_of(*(job, engine, plan, manifest, work, Team(), stop, reporter, sink))
        reader = run.reader
        assert isinstance(reader, TarReader)
        reader.split, reader.known = plan.samples_per_shard, partial(known_of, run)
        encode_inputs(run, iter(range(1)))
        check_end(store, reader.units)
        lock.check()
        rows = (InputRow(f"stdin/{unit:06d}", STDIN, unit) for unit in range(reader.units))
        write_inputs(store / INPUTS, rows)
        todo = tuple(unit for unit in range(reader.units) if unit not in reader.passed)
        work = Work(InputList.open(store / INPUTS), todo)
        # What is passed over holds nothing to encode each time; not all of it is behind a unit.
        whole = {"tars": None, "nothing_to_encode": reader.nothing_to_encode}
        return finished_store(run, work, lock, before, began) | whole


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
            f"{store} has {beyond:,} more shard{'' if beyond == 1 else 's'} than this stream has"
            " samples for: it was started with a longer stream. Give the whole stream, or choose"
            " another output folder (-o)."
        )
