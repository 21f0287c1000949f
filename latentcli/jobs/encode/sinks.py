"""Writes encoded units where they go: into a store, or as a tar stream to standard output."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from latentcli.core.reasons import Reasons
from latentcli.core.types import FILTERED, Picture, Row
from latentcli.jobs.encode.field_counts import FieldCounts
from latentcli.jobs.encode.first_inputs import CHECKED_INPUTS
from latentcli.jobs.encode.plan import EncodePlan
from latentcli.jobs.encode.rewrite import rewrite, rewriting_of
from latentcli.jobs.encode.run import EncodeRun, Sink
from latentcli.jobs.encode.texts import add_companions
from latentcli.jobs.encode.unit import EncodedUnit, drop_sample, samples_of
from latentcli.jobs.inference.engine import Engine
from latentcli.jobs.inference.self_check import self_check
from latentcli.jobs.loader.readers import SEPARATOR
from latentcli.jobs.runtime.background_thread import BackgroundThread
from latentcli.jobs.runtime.stdio import Stdout, go_on
from latentcli.latents.schema import posterior_text, shard_metadata
from latentcli.shards.store.commit import CommitRecord, Contents, commit_tar, commit_unit
from latentcli.shards.store.manifest import Manifest, write_manifest
from latentcli.shards.tar.write import TarSample, sample_chunks

SHOWN_FAILURES = 100
"""Failed inputs that the document of a pipe lists."""


@dataclass(slots=True)
class StoreSink(Sink):
    """A store: each unit becomes a shard, and its commit record is written last."""

    held: Callable[[], None] = go_on
    """StoreError where the store is another job's by now; asked before a unit is committed."""
    running: Manifest | None = None
    """Of a stream: what is written before its first unit, as the store is complete until then."""

    def check(self) -> None:
        """StoreError where the store is another job's by now."""
        self.held()

    def first(self, run: EncodeRun, batch: Sequence[Picture]) -> None:
        """The self-check of a stream, whose inputs cannot be read twice."""
        if self.running is not None:
            check_first(run, batch)

    def write(self, run: EncodeRun, unit: EncodedUnit, writer: BackgroundThread) -> None:
        """write: the shard, then its commit record."""
        writer.submit(self.commit, run, unit)

    def commit(self, run: EncodeRun, unit: EncodedUnit) -> None:
        """Writes a unit; StoreError where the store is another job's by now."""
        self.held()
        if self.running is not None:
            write_manifest(run.plan.store, self.running)
            self.running = None
        with run.meter.stage("write", 0):
            record = commit(run, unit)
            unit.drop_spilled()
        run.committed(record)


def commit(run: EncodeRun, unit: EncodedUnit) -> CommitRecord:
    """The shard and its record, in the store's format."""
    store, metadata = run.plan.store, unit_metadata(run.engine, run.plan, run.manifest, unit.number)
    rows = list(unit.rows.values())
    add_companions(run, unit, rows)
    if unit.number in run.parts:
        task = rewriting_of(store, run.manifest, run.inputs, unit.number, unit)
        fields = {row.key: unit.fields.get(row.key, {}) for row in rows}
        return rewrite(replace(task, fields=fields), metadata)
    contents = Contents(
        spec_hash=run.manifest.spec_hash,
        rows=rows,
        channels=unit.sums.to_json() if unit.sums.count else None,
        origin=run.reader.origins.pop(unit.number) if run.reader.packed else None,
        fields=unit.fields,
        roots=run.inputs.roots,
    )
    if run.manifest.format == "webdataset":
        samples = list(samples_of(unit, rows, metadata, run.inputs.roots))
        return commit_tar(store, unit.number, samples, contents)
    return commit_unit(store, unit.number, unit.tensors, metadata, contents)


def check_first(run: EncodeRun, batch: Sequence[Picture]) -> None:
    """The self-check of a first batch, if the job wants one; SelfCheckError where it fails."""
    if run.job.self_check:
        chosen = batch[:CHECKED_INPUTS]
        pictures, keys = [one.pixels for one in chosen], [one.row.key for one in chosen]
        self_check(run.engine, pictures, keys, run.plan.state, run.plan.store_dtype)


@dataclass(slots=True)
class TarStreamSink(Sink):
    """Standard output: samples become members of one tar, in the order of the inputs."""

    stream: Stdout
    counts: Counter[str] = field(default_factory=Counter)
    """encoded, failed, and the frames of clips."""
    failures: list[Row] = field(default_factory=list)
    """The first ones."""
    filters: Counter[str] = field(default_factory=Counter)
    """Inputs that the filters left out, by reason."""
    reasons: Reasons = field(default_factory=Reasons)
    """Of all."""
    fields: FieldCounts = field(default_factory=FieldCounts)
    """Of tars, what was taken of their samples."""
    settled: int = 0
    """Rows of the unit at hand that are written, or failed."""

    def first(self, run: EncodeRun, batch: Sequence[Picture]) -> None:
        """The self-check: these pictures cannot be read twice."""
        check_first(run, batch)

    def advance(self, run: EncodeRun, unit: EncodedUnit, writer: BackgroundThread) -> None:
        """Writes the samples that are encoded, up to the first that is not yet."""
        rows = list(unit.rows.values())[self.settled :]
        ready = itertools.takewhile(lambda row: row.status != "ok" or row.latent_shape, rows)
        self.put(run, unit, list(ready), writer)

    def write(self, run: EncodeRun, unit: EncodedUnit, writer: BackgroundThread) -> None:
        """Writes what is left of a unit; LatentCliError where nobody reads it any more."""
        self.put(run, unit, list(unit.rows.values())[self.settled :], writer)
        writer.submit(unit.drop_spilled)
        self.settled = 0

    def put(
        self, run: EncodeRun, unit: EncodedUnit, rows: Sequence[Row], writer: BackgroundThread
    ) -> None:
        """Has the samples of some rows written, and forgets them."""
        # All samples of a stream tell the same of themselves, wherever they were cut into units.
        metadata = unit_metadata(run.engine, run.plan, run.manifest, 0)
        add_companions(run, unit, rows)
        writer.submit(self.pour, run, list(samples_of(unit, rows, metadata, run.inputs.roots)))
        for row in rows:
            drop_sample(unit, row.key)
            self.count(row)
        self.settled += len(rows)

    def pour(self, run: EncodeRun, samples: Sequence[TarSample]) -> None:
        """Writes samples; LatentCliError where nobody reads them any more."""
        with run.meter.stage("write", 0):
            for sample in samples:
                self.stream.write(sample_chunks(sample))

    def count(self, row: Row) -> None:
        """Counts a row."""
        self.fields.add_row(row, row.source.partition(SEPARATOR)[0])
        if row.status == "ok":
            self.counts["encoded"] += 1
            shape = row.latent_shape or ()
            self.counts["frames"] += shape[0] if len(shape) == 4 else 0
            return
        if row.status == FILTERED:
            self.filters[row.error or ""] += 1
            return
        self.counts["failed"] += 1
        self.reasons.add(f"{row.stage}: {row.error}", row.key, row.source)
        if len(self.failures) < SHOWN_FAILURES:
            self.failures.append(row)


def unit_metadata(
    engine: Engine, plan: EncodePlan, manifest: Manifest, unit: int
) -> dict[str, str]:
    """The strings by which a shard describes itself, from the store's manifest."""
    model = manifest.model
    return shard_metadata(
        engine.model.spec,
        state=plan.state,
        posterior=posterior_text(plan.state, manifest.spec["latents"]["sample"]),
        model=model["name"],
        model_revision=model["revision"] or "",
        weights_sha256=model["weights_sha256"] or "",
        spec_hash=manifest.spec_hash,
        unit=unit,
        clips=plan.clips is not None,
        store_dtype=plan.store_dtype,
    )
