"""Models in, milliseconds and megabytes per batch out, measured in one process and one run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from latentcli.core.errors import UsageError
from latentcli.images.preprocess import parse_size
from latentcli.jobs.bench_stages import bench_stages
from latentcli.jobs.config import BenchJob, DecodeSettings, check_choices
from latentcli.jobs.engine import Engine, inference_config, load_engine
from latentcli.jobs.memory import peak_memory, reset_peak_memory
from latentcli.jobs.meter import Meter
from latentcli.jobs.talk import SILENT, Talk


def run_bench(job: BenchJob, talk: Talk = SILENT) -> dict[str, Any]:
    """The --json document of `bench`, or of its --stages form."""
    check_choices(job)
    if job.stages:
        return bench_stages(job, talk)
    if job.sources:
        raise UsageError("bench times random pictures; files are read with --stages only.")
    sizes = [parse_size(text) for text in job.resolution]
    names = list(dict.fromkeys([*job.models, *([job.baseline] if job.baseline else [])]))
    engines = {name: bench_engine(job, name) for name in names}
    first = next(iter(engines.values()))
    cases = [
        Case(op, size, batch)
        for op in (("encode", "decode") if job.op == "both" else (job.op,))
        for size in sizes
        for batch in job.batch
    ]
    meter = Meter("bench", len(cases), talk.progress, noun="cases")
    meter.begin()
    rows: list[dict[str, Any]] = []
    for case in cases:
        rows += measure_case(case, engines, job)
        meter.advance(1)
    if not rows:
        raise UsageError(f"None of the models can {job.op}: {', '.join(names)}.")
    return {
        "device": first.device_name,
        "dtype": first.dtype,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "compiled": False,
        "random_weights": job.random_weights,
        "warmup": job.warmup,
        "repeats": job.repeats,
        "memory": MEMORY[first.device.type],
        "rows": rows,
    }


MEMORY = {
    "cuda": "torch allocator: the model's weights, its inputs and what the op adds",
    "cpu": "whole process, resident, all models together",
}
"""What peak_memory_mib counts, by device type."""


@dataclass(frozen=True, slots=True)
class Case:
    """One thing to time."""

    op: str
    """encode or decode."""
    size: tuple[int, int]
    """(W, H)."""
    batch: int


@dataclass(slots=True)
class Timing:
    """Seconds of each repeat, and the most memory at one of them."""

    seconds: list[float]
    peak_mib: float


def bench_engine(job: BenchJob, name: str) -> Engine:
    """A model as `bench` runs it."""
    return load_engine(
        name,
        weights=job.weights,
        revision=job.revision,
        device=job.device,
        dtype=job.dtype,
        random_weights=job.random_weights,
    )


def measure_case(case: Case, engines: dict[str, Engine], job: BenchJob) -> list[dict[str, Any]]:
    """One row per model that can do it; repeats of the models are interleaved."""
    able = {n: e for n, e in engines.items() if can(e, case)}
    runs = {name: work(engine, case, job.steps) for name, engine in able.items()}
    timings = {name: Timing([], 0.0) for name in able}
    for turn in range(job.warmup + job.repeats):
        for name, engine in able.items():
            seconds, peak = timed(runs[name], engine.device)
            peak += own_memory(engine, case)
            if turn >= job.warmup:
                timings[name].seconds.append(seconds)
                timings[name].peak_mib = max(timings[name].peak_mib, peak)
    baseline = timings.get(job.baseline or "")
    cuda = all(engine.device.type == "cuda" for engine in able.values())
    return [row(name, case, timing, baseline, cuda) for name, timing in timings.items()]


def can(engine: Engine, case: Case) -> bool:
    """Whether a model does this op; UsageError where its size rule forbids the resolution."""
    if not (engine.model.can_encode if case.op == "encode" else engine.model.can_decode):
        return False
    width, height = case.size
    try:
        engine.model.spec.latent_size(height, width)
    except ValueError as error:
        raise UsageError(
            f"--resolution {width}x{height} and {engine.info.name}: {error}."
        ) from None
    return True


def work(engine: Engine, case: Case, steps: int) -> Callable[[], Tensor]:
    """A call that does the op once, on inputs that are on the device already."""
    (width, height), spec = case.size, engine.model.spec
    generator = torch.Generator().manual_seed(0)
    if case.op == "encode":
        images = torch.rand(case.batch, 3, height, width, generator=generator) * 2 - 1
        images = images.to(engine.device)
        return lambda: engine.model.encode(images)
    h, w = spec.latent_size(height, width)
    latents = torch.randn(case.batch, spec.channels, h, w, generator=generator).to(engine.device)
    noise = torch.randn(case.batch, 3, height, width, generator=generator).to(engine.device)
    config = inference_config(DecodeSettings(steps=steps))
    return lambda: engine.model.decode(latents, height, width, config, noise=noise)


@torch.inference_mode()
def timed(call: Callable[[], Tensor], device: torch.device) -> tuple[float, float]:
    """(seconds, peak MiB) of one call: CUDA events on a GPU, the clock elsewhere."""
    reset_peak_memory(device)
    if device.type != "cuda":
        start = time.perf_counter()
        call()
        return time.perf_counter() - start, peak_memory(device)
    before = torch.cuda.memory_allocated(device)
    begin, end = (
        torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        for _ in range(2)
    )
    torch.cuda.synchronize(device)
    begin.record()
    call()
    end.record()
    torch.cuda.synchronize(device)
    return begin.elapsed_time(end) / 1000, peak_memory(device) - before / 2**20


def own_memory(engine: Engine, case: Case) -> float:
    """MiB of a model's weights and inputs on a GPU, where other models lie beside them."""
    if engine.device.type != "cuda":
        return 0.0
    tensors = [*engine.model.parameters(), *engine.model.buffers()]
    pixels = 4 * 3 * case.batch * case.size[0] * case.size[1]
    return (sum(tensor.nbytes for tensor in tensors) + pixels) / 2**20


def row(
    name: str, case: Case, timing: Timing, baseline: Timing | None, cuda: bool
) -> dict[str, Any]:
    """One row of the document; medians, and the spread between the slowest and fastest repeat."""
    median = statistics.median(timing.seconds)
    return {
        "model": name,
        "op": case.op,
        "resolution": "x".join(map(str, case.size)),
        "batch": case.batch,
        "ms_per_batch": round(1000 * median, 3),
        "ms_min": round(1000 * min(timing.seconds), 3),
        "ms_max": round(1000 * max(timing.seconds), 3),
        "images_per_second": round(case.batch / median, 2),
        "peak_memory_mib": round(timing.peak_mib, 1),
        **versus(median, timing.peak_mib, baseline, cuda),
    }


def versus(
    median: float, peak: float, baseline: Timing | None, cuda: bool
) -> dict[str, float | None]:
    """Speedup (times) and memory reduction (a fraction) against the baseline, or None.

    On a CPU the peak is the whole process's, all models together, so there is no reduction.
    """
    if baseline is None:
        return {"speedup": None, "memory_reduction": None}
    return {
        "speedup": round(statistics.median(baseline.seconds) / median, 3),
        "memory_reduction": round(1 - peak / baseline.peak_mib, 4) if cuda else None,
    }
