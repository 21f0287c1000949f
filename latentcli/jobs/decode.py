"""The decode job: a store or a file of latents in, pictures out."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor

from latentcli.core.errors import SampleError, UsageError
from latentcli.images.codec import SUFFIX_OF, encode_image
from latentcli.jobs.batching import batches
from latentcli.jobs.config import DecodeJob, check_choices
from latentcli.jobs.encode_plan import BATCH_PIXELS
from latentcli.jobs.engine import DEFAULT_BATCH, Engine, decode_batch, inference_config, load_engine
from latentcli.jobs.latent_source import (
    LatentSample,
    LatentSource,
    check_preset_space,
    check_space,
    open_latents,
    whitened,
)
from latentcli.jobs.loader import cores
from latentcli.jobs.meter import Meter
from latentcli.jobs.signals import StopRequest, stop_on_signals
from latentcli.jobs.talk import SILENT, Talk
from latentcli.shards.write import atomic_write, write_error


def run_decode(job: DecodeJob, talk: Talk = SILENT) -> dict[str, Any]:
    """Decodes every latent; the result is the --json document of `decode`.

    A latent that cannot be decoded counts as failed and is named in `failures`; the rest goes on.
    """
    check_choices(job)
    inference_config(job)
    began = time.perf_counter()
    source = open_latents(Path(job.store), job.latents)
    model = model_for(job, source)
    check_preset_space(source, model, force=job.force)
    engine = load_engine(
        model,
        weights=job.weights,
        revision=job.revision,
        device=job.device,
        dtype=job.dtype,
    )
    check_space(source, engine, force=job.force)
    output = Path(job.output or f"{Path(job.store).resolve().stem}.images")
    make_folder(output)
    with stop_on_signals("Add --skip-existing to go on from here.") as stop:
        run = DecodeRun(
            job, source, engine, output, Meter("decode", source.count, talk.progress), stop
        )
        decode_all(run)
    return document(run, time.perf_counter() - began)


def model_for(job: DecodeJob, source: LatentSource) -> str:
    """The model that is asked for, or the one that the latents name."""
    model = job.model or source.model
    if model is None:
        raise UsageError(f"{source.path} does not say which model made it; name one with --model.")
    return model


@dataclass(frozen=True, slots=True)
class DecodeRun:
    """What the functions below work with."""

    job: DecodeJob
    source: LatentSource
    engine: Engine
    output: Path
    meter: Meter
    stop: StopRequest
    skipped: list[str] = field(default_factory=list)
    failures: list[dict[str, str]] = field(default_factory=list)

    def path(self, key: str) -> Path:
        """Where a key's picture goes."""
        return self.output / f"{key}{SUFFIX_OF[self.job.format]}"


def decode_all(run: DecodeRun) -> None:
    """read | batch, decode | encode_image, write: pictures are written by a pool of threads."""
    threads = run.job.workers or min(cores(), 8)
    batch_size = run.job.batch_size or DEFAULT_BATCH[run.engine.device.type]
    spec = run.engine.model.spec
    pending: deque[Future[None]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="encode_image") as pool:
        most = batch_size * BATCH_PIXELS * spec.channels // spec.downscale**2
        for group in batches(wanted(run), lambda sample: sample.latent, batch_size, most):
            run.stop.check()
            pixels = decode_group(run, group)
            for sample, picture in zip(group, pixels, strict=True):
                pending.append(pool.submit(write_picture, run, sample.key, picture))
            while len(pending) > 4 * threads:
                pending.popleft().result()
            run.meter.advance(len(group))
        while pending:
            pending.popleft().result()


def make_folder(path: Path) -> None:
    """The output folder, before anything costly is done; StoreError where it cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise UsageError(f"-o {path} is a file; name a folder.") from error
    except OSError as error:
        raise write_error(path, error) from error


@dataclass(frozen=True, slots=True)
class Loaded:
    """A latent [C, h, w] and its key."""

    key: str
    latent: Tensor


def wanted(run: DecodeRun) -> Iterator[Loaded]:
    """The samples to decode: sound ones whose picture is not there yet, or not asked to be kept."""
    for sample in run.source.samples():
        run.stop.check()
        reason = unsafe(run, sample)
        if reason is None and run.job.skip_existing and run.path(sample.key).exists():
            run.skipped.append(sample.key)
            run.meter.advance(1)
            continue
        if reason is None:
            with run.meter.stage("read", 1):
                loaded = Loaded(sample.key, sample.load())
            run.meter.begin()
            reason = unsound(loaded.latent, run.engine)
            if reason is None:
                yield loaded
                continue
        run.failures.append({"key": sample.key, "error": reason})
        run.meter.advance(1, 1)


def unsafe(run: DecodeRun, sample: LatentSample) -> str | None:
    """Why a sample's picture must not be written, or None."""
    parts = PurePosixPath(sample.key).parts
    if not parts or sample.key.startswith("/") or ".." in parts or "\0" in sample.key:
        return "the key would leave the output folder"
    path = run.path(sample.key)
    if sample.source is not None and same_file(path, sample.source):
        return f"{path} is the picture that the latent was made from; choose another -o"
    return None


def same_file(path: Path, source: str) -> bool:
    """Whether both are there and are one file."""
    try:
        return path.samefile(source)
    except OSError:
        return False


def unsound(latent: Tensor, engine: Engine) -> str | None:
    """Why a latent cannot be decoded, or None."""
    channels = engine.model.spec.channels
    if latent.shape[0] != channels:
        return f"the latent has {latent.shape[0]} channels, the model takes {channels}"
    sides = [side * engine.model.spec.downscale for side in latent.shape[1:]]
    if any(side % engine.model.spec.size_divisor for side in sides):
        return f"the picture would be {sides[1]}x{sides[0]}, which the model's size rule forbids"
    if not torch.isfinite(latent).all():
        return "the latent has values that are not finite"
    return None


def decode_group(run: DecodeRun, group: Sequence[Loaded]) -> Tensor:
    """Latents of one shape to uint8 pictures [N, 3, H, W]."""
    with run.meter.stage("decode", len(group)):
        stacked = torch.stack([sample.latent for sample in group])
        latents = whitened(run.engine, stacked, run.source.state)
        return decode_batch(run.engine, latents, [sample.key for sample in group], run.job)


def write_picture(run: DecodeRun, key: str, pixels: Tensor) -> None:
    """encode_image and write: no half picture is ever seen under its name."""
    start = time.perf_counter()
    try:
        data = encode_image(pixels, run.job.format, run.job.quality)
    except SampleError as error:
        run.failures.append({"key": key, "error": error.reason})
        return
    middle = time.perf_counter()
    path = run.path(key)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, [data])
    run.meter.add("encode_image", middle - start, 1)
    run.meter.add("write", time.perf_counter() - middle, 1)


def document(run: DecodeRun, seconds: float) -> dict[str, Any]:
    """The --json document."""
    meter = run.meter
    return {
        "store": str(run.source.path),
        "output": str(run.output),
        "model": run.engine.info.preset_name or run.engine.info.name,
        "decoded": meter.done - len(run.skipped) - len(run.failures),
        "skipped": len(run.skipped),
        "failed": len(run.failures),
        "failures": run.failures,
        "seconds": round(seconds, 3),
        "images_per_second": round(meter.final_rate, 2),
        "stages": meter.report(),
        "bottleneck": meter.bottleneck(),
        "device": run.engine.device_name,
        "dtype": run.engine.dtype,
        "steps": run.job.steps,
        "sampler": run.job.sampler,
        "seed": run.job.seed,
    }
