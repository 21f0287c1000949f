"""Encodes inputs of any kind to a tar stream on standard output, in their order."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from latentcli.core.fields import caption_rule
from latentcli.core.types import InputRow
from latentcli.jobs.cluster.team import Team
from latentcli.jobs.config import EncodeJob
from latentcli.jobs.encode.captions import USUAL
from latentcli.jobs.encode.document import paces
from latentcli.jobs.encode.plan import plan_encode
from latentcli.jobs.encode.run import run_of
from latentcli.jobs.encode.share import encode_inputs
from latentcli.jobs.encode.sinks import TarStreamSink
from latentcli.jobs.encode.texts import captions_document
from latentcli.jobs.encode.worklist import Work
from latentcli.jobs.inference.engine import Engine
from latentcli.jobs.loader.find_media import media_of
from latentcli.jobs.loader.packed_options import check_packed_options
from latentcli.jobs.loader.packed_reader import PackedReader
from latentcli.jobs.runtime.reporter import Reporter
from latentcli.jobs.runtime.signals import StopRequest
from latentcli.jobs.runtime.stdio import STDIN, STDOUT, Stdout
from latentcli.shards.layout import INPUTS
from latentcli.shards.sources.find_inputs import assign_units
from latentcli.shards.store.input_list import InputList, write_inputs
from latentcli.shards.tar.write import END

PIPE_UNIT = 256
"""Samples that are held at most before they go out: pictures of rare sizes wait for company."""


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
        media, kind, inputs, left_out = inputs_of(job, Path(folder), reporter)
        plan = plan_encode(job, engine, media, kind)
        reporter.about(STDOUT, plan.manifest.model["name"])
        sink, work = TarStreamSink(stream), Work(inputs, tuple(range(inputs.units)))
        run = run_of(*(job, engine, plan, plan.manifest, work, Team(), stop, reporter, sink))
        if isinstance(run.reader, PackedReader):
            run.reader.split, run.reader.check = PIPE_UNIT, stream.check
        encode_inputs(run, iter(work.todo))
        stream.write([END])
    counts, clips = sink.counts, plan.clips is not None
    sink.fields.nothing_to_encode = run.reader.nothing_to_encode
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
        "inputs": counts["encoded"] + counts["failed"] + sink.filters.total(),
        "bytes": stream.bytes,
        "filtered": sink.filters.total(),
        "filter_reasons": dict(sink.filters.most_common()),
        "latent_space": plan.manifest.latent_space,
        "geometry": engine.model.spec.geometry,
        "captions": captions_document(run),
        "failures": [
            {"key": row.key, "source": row.source, "stage": row.stage, "error": row.error}
            for row in sink.failures
        ],
        "reasons": sink.reasons.counts(),
        "reason_examples": sink.reasons.examples(),
        **left_out,
        **sink.fields.to_json(),
    }


def inputs_of(
    job: EncodeJob, folder: Path, reporter: Reporter
) -> tuple[str, str, InputList, dict[str, Any]]:
    """(media, kind of source, the inputs, what of the document tells what is none of them).

    The inputs are listed in a temporary folder of this run.
    """
    left_out: dict[str, Any] = {}
    if job.sources == (STDIN,):
        media, kind = media_of_stdin(job), "tars"
        rows = [InputRow("", STDIN, 0)]
    else:
        texts = caption_rule(job.captions or USUAL)
        found = media_of(job, reporter, job.allow_pipe, texts)
        check_packed_options(job, found, reporter)
        media, kind = found.media, found.kind
        left_out = {"left_out": found.left_out, "left_out_by": found.left_out_by}
        each = 1 if found.packed or media == "clips" else PIPE_UNIT
        rows = assign_units(found.inputs, each)
        if found.packed and len(rows) == 1:
            rows = [replace(rows[0], key="")]
    write_inputs(folder / INPUTS, rows)
    return media, kind, InputList.open(folder / INPUTS), left_out


def media_of_stdin(job: EncodeJob) -> str:
    """Nothing can be told of a stream beforehand: pictures, unless clips are asked for."""
    return "images" if job.media == "auto" else job.media
