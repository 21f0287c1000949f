"""Inputs of any kind in, a tar stream of latents on standard output, in their order, out."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from latentcli.core.types import InputRow, Picture, Row
from latentcli.jobs.cluster.team import Solo
from latentcli.jobs.config import EncodeJob
from latentcli.jobs.encode.clip_stream import clip_inputs, encode_clips
from latentcli.jobs.encode.document import paces
from latentcli.jobs.encode.first_inputs import CHECKED_INPUTS
from latentcli.jobs.encode.plan import plan_encode
from latentcli.jobs.encode.run import EncodeRun, run_of
from latentcli.jobs.encode.sinks import unit_metadata
from latentcli.jobs.encode.stream import encode_units
from latentcli.jobs.encode.unit import EncodedUnit, drop_sample, samples_of
from latentcli.jobs.inference.engine import Engine
from latentcli.jobs.inference.self_check import self_check
from latentcli.jobs.loader.find_media import find_media
from latentcli.jobs.loader.prepare import unit_tasks
from latentcli.jobs.runtime.reporter import Reporter
from latentcli.jobs.runtime.signals import StopRequest
from latentcli.jobs.runtime.stdio import STDIN, Stdout
from latentcli.shards.layout import INPUTS
from latentcli.shards.sources.find_inputs import assign_units
from latentcli.shards.store.input_list import InputList, write_inputs
from latentcli.shards.tar.write import END, sample_chunks

PIPE_UNIT = 256
"""Samples that are held at most before they go out: pictures of rare sizes wait for company."""
SHOWN_FAILURES = 100
"""Failed inputs that the document of a pipe lists."""


@dataclass(slots=True)
class PipeEnd:
    """Standard output as the end of the stream: samples become members of one tar, in order."""

    stream: Stdout
    counts: Counter[str] = field(default_factory=Counter)
    """encoded, failed, and the frames of clips."""
    failures: list[Row] = field(default_factory=list)
    """The first ones."""
    settled: int = 0
    """Rows of the unit at hand that are written, or failed."""

    def advance(self, run: EncodeRun, unit: EncodedUnit) -> None:
        """Writes the samples that are encoded, up to the first that is not yet."""
        rows = itertools.islice(list(unit.rows.values()), self.settled, None)
        self.put(run, unit, list(itertools.takewhile(is_settled, rows)))

    def write(self, run: EncodeRun, unit: EncodedUnit) -> None:
        """Writes what is left of a unit; LatentCliError where nobody reads it any more."""
        self.put(run, unit, list(unit.rows.values())[self.settled :])
        unit.spill.drop()
        self.settled = 0

    def put(self, run: EncodeRun, unit: EncodedUnit, rows: Sequence[Row]) -> None:
        """Writes the samples of some rows, and forgets them."""
        # All samples of a stream tell the same of themselves, wherever they were cut into units.
        metadata = unit_metadata(run, 0)
        with run.meter.stage("write", 0):
            for sample in samples_of(unit, rows, metadata):
                self.stream.write(sample_chunks(sample))
        for row in rows:
            drop_sample(unit, row.key)
            self.count(row)
        self.settled += len(rows)

    def count(self, row: Row) -> None:
        """Counts a row."""
        if row.status == "ok":
            self.counts["encoded"] += 1
            shape = row.latent_shape or ()
            self.counts["frames"] += shape[0] if len(shape) == 4 else 0
            return
        self.counts["failed"] += 1
        if len(self.failures) < SHOWN_FAILURES:
            self.failures.append(row)


def is_settled(row: Row) -> bool:
    """Whether nothing more becomes of a row."""
    return row.status != "ok" or row.latent_shape is not None


def encode_to_stdout(
    job: EncodeJob, engine: Engine, stream: Stdout, stop: StopRequest, reporter: Reporter
) -> dict[str, Any]:
    """Any inputs to a tar stream on standard output; the --json document.

    The end mark says that the job came to its end. Inputs that failed, the rest of a tar that was
    cut short among them, are told by the document and the exit code, as they are of a store.
    """
    began = time.perf_counter()
    job = replace(job, shard_format="webdataset")
    with tempfile.TemporaryDirectory(prefix="latentcli-") as folder:
        media, tars, inputs = inputs_of(job, Path(folder), reporter)
        plan = plan_encode(job, engine, media, tars=tars)
        end = PipeEnd(stream)
        units = range(inputs.units)
        run = run_of(
            job, engine, plan, plan.manifest, inputs, units, Solo(), stop, reporter, end.write
        )
        run = replace(run, progressed=end.advance, first=checker(run))
        if run.tars is not None:
            run.tars.split = PIPE_UNIT
            run.tars.check = stream.check
        feed(run)
        stream.write([END])
    counts, clips = end.counts, plan.clips is not None
    return {
        "store": "-",
        "model": plan.manifest.model["name"],
        "encoded": counts["encoded"],
        "skipped": 0,
        "failed": counts["failed"],
        "seconds": round(time.perf_counter() - began, 3),
        **paces(run),
        "media": media,
        "frames": counts["frames"] if clips else None,
        "inputs": counts["encoded"] + counts["failed"],
        "bytes": stream.bytes,
        "latent_space": plan.manifest.latent_space,
        "geometry": engine.model.spec.geometry,
        "failures": [failure(row) for row in end.failures],
    }


def failure(row: Row) -> dict[str, Any]:
    """A failed input as the document lists it."""
    return {"key": row.key, "source": row.source, "stage": row.stage, "error": row.error}


def inputs_of(job: EncodeJob, folder: Path, reporter: Reporter) -> tuple[str, bool, InputList]:
    """(media, whether they are tars, the inputs): listed in a temporary folder of this run."""
    if job.sources == (STDIN,):
        media, tars = media_of_stdin(job), True
        rows = [InputRow("", STDIN, 0)]
    else:
        found = find_media(job.sources, job.media, reporter, allow_pipe=job.allow_pipe)
        media, tars = found.media, found.tars
        each = 1 if tars or media == "clips" else PIPE_UNIT
        rows = assign_units(found.inputs, each)
        if tars and len(rows) == 1:
            rows = [replace(rows[0], key="")]
    write_inputs(folder / INPUTS, rows)
    return media, tars, InputList.open(folder / INPUTS)


def media_of_stdin(job: EncodeJob) -> str:
    """Nothing can be told of a stream beforehand: pictures, unless clips are asked for."""
    return "images" if job.media == "auto" else job.media


def checker(run: EncodeRun) -> Callable[[Sequence[Picture]], None] | None:
    """The self-check of a pipe, whose first pictures cannot be read twice: of the first batch."""
    if not run.job.self_check:
        return None

    def check(batch: Sequence[Picture]) -> None:
        chosen = batch[:CHECKED_INPUTS]
        self_check(run.engine, [p.pixels for p in chosen], [p.row.key for p in chosen])

    return check


def feed(run: EncodeRun) -> None:
    """Encodes all inputs of a pipe, in order."""
    units = range(run.inputs.units)
    if run.plan.clips is not None:
        clips = itertools.chain.from_iterable(clip_inputs(run, unit) for unit in units)
        encode_clips(run, ((number, [clip]) for number, clip in enumerate(clips)))
    elif run.tars is not None:
        encode_units(run, run.tars.tasks(run.inputs))
    else:
        encode_units(run, unit_tasks(run.intake, units))
