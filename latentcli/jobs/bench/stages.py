"""Times a whole encode job in parts: the image stages alone, the model alone, both together."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latentcli.core.errors import LatentCliError, UsageError
from latentcli.images.codec import DecodePolicy
from latentcli.images.formats import IMAGE_SUFFIXES
from latentcli.jobs.bench.config import BenchJob
from latentcli.jobs.config import EncodeJob
from latentcli.jobs.encode.job import run_encode
from latentcli.jobs.inference.batch_size import default_batch_size
from latentcli.jobs.inference.capabilities import refuse_decoder
from latentcli.jobs.inference.encode_batch import encode_on_device
from latentcli.jobs.inference.engine import Engine, engine_of
from latentcli.jobs.inference.split_on_oom import SplitOnOom
from latentcli.jobs.loader.find_media import PER_SHARD
from latentcli.jobs.loader.loader import open_chunks, pick_workers
from latentcli.jobs.loader.prepare import Intake, Recipe, unit_tasks
from latentcli.jobs.loader.sizes import preprocess_spec
from latentcli.jobs.runtime.meter import IMAGE_STAGES
from latentcli.jobs.runtime.reporter import Reporter
from latentcli.shards.sources.find_inputs import assign_units, find_inputs
from latentcli.shards.store.input_list import InputList, write_inputs

MODEL_BATCHES = 8
"""Different batches that the model alone is timed on, in turn."""


def bench_stages(job: BenchJob, reporter: Reporter) -> dict[str, Any]:
    """The --json document of `bench --stages`: three rates in images a second, and their ratio.

    `ratio` is the rate of the whole job over the slower of its two halves run alone. Rates count
    from the first batch on: starting workers is given apart.
    """
    if not job.sources:
        raise UsageError("bench --stages needs real files: name a folder of pictures.")
    if job.size is None:
        raise UsageError("bench --stages needs a --size, such as --size 256.")
    if job.random_weights or job.baseline is not None:
        raise UsageError("bench --stages takes neither --random-weights nor --baseline.")
    if len(job.models) > 1:
        raise UsageError("bench --stages takes one --model.")
    encode = encode_job(job)
    reporter.status("Loading the model")
    engine = engine_of(encode)
    refuse_decoder(engine)
    found = find_inputs(job.sources, IMAGE_SUFFIXES)
    preprocess = preprocess_spec(encode, engine.model.spec.size_divisor)
    batch_size = job.batch_size or default_batch_size(type(engine.accelerator), preprocess)
    encode = replace(encode, batch_size=batch_size)  # all parts are of the same batches
    recipe = Recipe(DecodePolicy(), preprocess)
    with tempfile.TemporaryDirectory(prefix="latentcli-") as folder:
        path = Path(folder) / "inputs.jsonl"
        write_inputs(path, assign_units(found, PER_SHARD["images"]))
        intake = Intake(InputList.open(path), recipe)
        workers = pick_workers(job.workers, len(found), note=reporter.note)
        reporter.note(f"The image stages alone, {len(found)} inputs, {workers} workers.")
        images_alone, pictures = time_images(intake, workers, batch_size * MODEL_BATCHES)
        reporter.note("The model alone.")
        model_alone = time_model(engine, pictures, encode, len(found), reporter)
        reporter.note("The whole job.")
        whole = run_encode(replace(encode, output=str(Path(folder) / "store")), reporter)
    slower = min(images_alone, model_alone)
    return {
        **{name: whole[name] for name in ("model", "device", "dtype", "inputs")},
        "workers": workers,
        "batch_size": batch_size,
        "image_stages_alone": round(images_alone, 2),
        "model_alone": round(model_alone, 2),
        "job": whole["images_per_second"],
        "ratio": round(whole["images_per_second"] / slower, 4),
        **{name: whole[name] for name in ("startup_seconds", "waited_seconds", "bottleneck")},
        "stages": {
            name: stage | {"per_second": per_second(name, stage, workers)}
            for name, stage in whole["stages"].items()
        },
    }


def encode_job(job: BenchJob) -> EncodeJob:
    """The encode job that is taken apart."""
    return EncodeJob(
        sources=job.sources,
        media="images",
        model=job.models[0],
        weights=job.weights,
        revision=job.revision,
        device=job.device,
        dtype=job.dtype,
        size=job.size,
        batch_size=job.batch_size,
        workers=job.workers,
        compile="off",
        self_check=False,
    )


def time_images(intake: Intake, workers: int, keep: int) -> tuple[float, list[Tensor]]:
    """(images a second of read, decode_image and preprocess; some of their pictures)."""
    began = start = time.perf_counter()
    rows, done = 0, 0
    kept: list[Tensor] = []
    tasks = unit_tasks(intake, range(intake.inputs.units))
    with open_chunks(intake, tasks, workers) as chunks:
        for number, chunk in enumerate(chunks):
            # As in the job: the clock runs from when every worker has given its first chunk.
            rows += len(chunk.rows)
            if number < max(workers, 1):
                start = time.perf_counter()
            else:
                done += len(chunk.rows)
            good = (pixels for _, pixels in chunk.pictures() if pixels is not None)
            kept += list(itertools.islice(good, max(keep - len(kept), 0)))
    if not kept:
        raise LatentCliError("None of the inputs is a readable picture.")
    end = time.perf_counter()
    # A handful of inputs is over before all workers have started: then the start counts too.
    return (done / (end - start) if done else rows / (end - began)), kept


def time_model(
    engine: Engine, pictures: Sequence[Tensor], job: EncodeJob, images: int, reporter: Reporter
) -> float:
    """Images a second of encode alone, in the job's batches and over as many images as it has.

    The pictures lie on the device already, the latents stay there, and nothing is waited for but
    the end: as in the job, where other threads see to all that.
    """
    size, accelerator = job.batch_size or len(pictures), engine.accelerator
    groups = [pictures[i : i + size] for i in range(0, len(pictures), size)]
    batches = [accelerator.to_device(torch.stack(list(group))) for group in groups]
    split_on_oom = SplitOnOom(reporter.note)
    state, dtype = engine.model.spec.state, job.store_dtype
    encode = partial(encode_on_device, engine, state=state, store_dtype=dtype)
    split_on_oom.encode(encode, batches[0], [""] * len(batches[0]))
    accelerator.synchronize()
    start, done = time.perf_counter(), 0
    for batch in itertools.cycle(batches):
        split_on_oom.encode(encode, batch, [""] * len(batch))
        done += len(batch)
        if done >= images:
            break
    accelerator.synchronize()
    return done / (time.perf_counter() - start)


def per_second(name: str, stage: dict[str, Any], workers: int) -> float | None:
    """What a stage could do if it were alone; image stages have `workers` processes."""
    width = max(workers, 1) if name in IMAGE_STAGES else 1
    return round(width * stage["items"] / stage["seconds"], 2) if stage["seconds"] else None
