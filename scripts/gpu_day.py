"""Measures everything that only a GPU can show, in fifteen minutes, into one JSON file.

Each step is a process of its own with a time limit, so that one that fails or hangs loses nothing
of the others; the file is written anew after each. Weights are random. The steps:

    tests      tests/test_cuda.py, where CUDA is required
    ceilings   the machine's matrix rate by dtype, and its bandwidth
    kernels    where the networks' time goes: products, depthwise, attention, norms, the rest
    depthwise  the 7x7 depthwise convolution by itself, channels first and last
    compile    networks as they are, compiled, recorded as a CUDA graph, and both, in turns
    encode     the published table of encode: two models against FLUX.2, in turns
    decode     the published table of decode
    stages-N   the stages of an encode job of 512x512 JPEG files to N pixels, each alone
    job-N      the job from tars of the same JPEGs, held against the slowest of these stages
    decoded-N  the same job with --decode-on gpu, where its package is installed

    python scripts/gpu_day.py --json gpu.json
    python scripts/gpu_day.py --device cpu --small      the same code on a CPU, in small
"""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
WORDS_KEPT = 2000
"""Characters of what a step said that failed."""
JPEG_SIDE = 512
DECODER = "nvidia.nvimgcodec"
PER_TAR = 512
PARTS: Mapping[str, Sequence[str]] = {
    "depthwise": ("depthwise", "dwconv", "dw_conv"),
    "attention": ("flash", "fmha", "attention"),
    "products": ("gemm", "mm", "linear", "cutlass", "nvjet", "xmma", "conv", "product"),
    "norms and sums": ("norm", "reduce", "sum", "mean", "grn"),
    "copies": ("copy", "memcpy", "memset", "cat", "clone"),
}
"""Part of a network -> words in the names of its kernels; the first that fits counts."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """What is measured, on a card or in small."""

    encoders: tuple[str, ...] = ("full_capacitor", "dinac_ae_d2")
    decoder: str = "capacitor_decoder"
    baseline: str = "flux2"
    tables: Mapping[str, tuple[str, ...]] | None = None
    """Words of `bench` for each op, instead of --preset-table."""
    kernels: tuple[tuple[str, str, int, int], ...] = (
        ("full_capacitor", "encode", 256, 128),
        ("dinac_ae_d2", "encode", 256, 128),
        ("capacitor_decoder", "decode", 1024, 1),
    )
    """(Model, op, side, batch)."""
    compiled: tuple[tuple[str, str, int, int], ...] = (
        ("full_capacitor", "encode", 256, 128),
        ("dinac_ae_d2", "encode", 256, 128),
        ("taef2", "encode", 256, 32),
        ("capacitor_decoder", "decode", 512, 1),
        ("capacitor_decoder", "decode", 1024, 1),
        ("taef2", "decode", 256, 32),
    )
    """The same."""
    depthwise: tuple[int, int, int] = (128, 896, 16)
    """(N, C, cells along a side)."""
    repeats: int = 15
    different: int = 256
    """JPEGs; the tars and the folder repeat them."""
    images: int = 8192
    sides: tuple[int, ...] = (256, 512)


FULL = Sizes()
SMALL = Sizes(
    encoders=("fcdm_nano", "linear16"),
    decoder="fcdm_nano",
    baseline="taesd",
    tables={op: ("--op", op, "--resolution", "32", "--batch", "1") for op in ("encode", "decode")},
    kernels=(("fcdm_nano", "encode", 32, 1), ("fcdm_nano", "decode", 32, 1)),
    compiled=(("linear16", "encode", 32, 1), ("fcdm_nano", "decode", 32, 1)),
    depthwise=(1, 32, 4),
    repeats=1,
    different=4,
    images=16,
    sides=(64,),
)


@dataclass(frozen=True, slots=True)
class Day:
    """Where, what, and a folder for what the steps make."""

    device: str
    small: bool
    work: Path

    @property
    def sizes(self) -> Sizes:
        return SMALL if self.small else FULL

    @property
    def job_model(self) -> tuple[str, ...]:
        """Words that name the model of the whole job, with the weights that a step made."""
        weights = self.work / "model.safetensors"
        return ("--model", self.sizes.encoders[0], "--weights", str(weights))


@dataclass(frozen=True, slots=True)
class Step:
    """One process."""

    name: str
    limit: float
    """Seconds."""
    words: tuple[str, ...]
    """Of the command, after the interpreter's name."""


def steps_of(day: Day) -> list[Step]:
    """All of them, in their order."""
    here, device = str(Path(__file__).resolve()), ("--device", day.device)
    own = (*device, "--work", str(day.work), *(["--small"] if day.small else []))
    pytest = ("-m", "pytest", "-q", "-p", "no:cacheprovider", str(ROOT / "tests/test_cuda.py"))
    jpegs, tars = str(day.work / "jpegs"), str(day.work / "tars")
    steps = [
        Step("tests", 150, pytest),
        *(Step(name, LIMITS.get(name, 60), (here, "--step", name, *own)) for name in OWN_STEPS),
        *(Step(op, 150, bench_words(day, op)) for op in ("encode", "decode")),
    ]
    for side in day.sizes.sides:
        size, ours = ("--size", str(side)), ("-m", "latentcli")
        common = (*day.job_model, *device, *size, "--json", "--quiet")
        stages = Step(f"stages-{side}", 120, (*ours, "bench", jpegs, "--stages", *common))
        store = ("-o", str(day.work / f"store-{side}"), "--no-self-check")
        steps += [stages, Step(f"job-{side}", 90, (*ours, "encode", tars, *store, *common))]
        if day.device != "cpu" and find_spec("nvidia") and find_spec(DECODER):
            store = ("-o", str(day.work / f"decoded-{side}"), "--decode-on", "gpu")
            # With the self-check, which compares what both decode.
            steps.append(Step(f"decoded-{side}", 90, (*ours, "encode", tars, *store, *common)))
    return steps


def bench_words(day: Day, op: str) -> tuple[str, ...]:
    """The words of a published table."""
    sizes = day.sizes
    models = sizes.encoders if op == "encode" else (sizes.decoder,)
    table = sizes.tables[op] if sizes.tables else ("--preset-table", op)
    named = [word for model in models for word in ("--model", model)]
    return (
        *("-m", "latentcli", "bench", *named, "--baseline", sizes.baseline, *table),
        *("--random-weights", "--roofline", "--repeats", str(sizes.repeats)),
        *("--device", day.device, "--json", "--quiet"),
    )


def make_weights(day: Day) -> dict[str, Any]:
    """Random weights of the whole job's model, as a file."""
    from safetensors.torch import save_file

    from latentcli.models.registry import load_model

    model = load_model(day.sizes.encoders[0], random_weights=True)
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, day.work / "model.safetensors")
    return {"model": day.sizes.encoders[0], "parameters": model.parameter_count()}


def make_inputs(day: Day) -> dict[str, Any]:
    """JPEGs in a folder, and the same in tars."""
    from against_plain import make_pictures

    sizes, made = day.sizes, day.work / "made"
    make_pictures(made, None, sizes.different, JPEG_SIDE)
    contents = sorted(made.iterdir())
    jpegs, tars = day.work / "jpegs", day.work / "tars"
    jpegs.mkdir()
    tars.mkdir()
    # By their bytes: as files, the same one again would be a link.
    pictures = [path.read_bytes() for path in contents]
    for start in range(0, sizes.images, PER_TAR):
        with tarfile.open(tars / f"{start:08d}.tar", "w") as tar:
            for number in range(start, min(start + PER_TAR, sizes.images)):
                name, which = f"{number:08d}.jpg", number % len(contents)
                member = tarfile.TarInfo(name)
                member.size = len(pictures[which])
                tar.addfile(member, io.BytesIO(pictures[which]))
                (jpegs / name).hardlink_to(contents[which])
    return {"images": sizes.images, "different": sizes.different, "side": JPEG_SIDE}


def measure_ceilings(day: Day) -> dict[str, Any]:
    """The machine's rates, in turns, and what the machine is."""
    from turns import machine

    from latentcli.jobs.bench.ceilings import ceilings_document, ceilings_of, measure_all
    from latentcli.jobs.inference.accelerator import pick_device, pick_dtype

    accelerator = pick_device(day.device)
    accelerator.prepare()
    ceilings = ceilings_of(accelerator, pick_dtype("auto", accelerator))
    for _ in range(day.sizes.repeats):
        measure_all(ceilings, accelerator)
    facts = {"device": accelerator.describe(), **accelerator.facts(), **machine()}
    return {**facts, **ceilings_document(ceilings), "clocks": accelerator.clocks()}


def measure_kernels(day: Day) -> dict[str, Any]:
    """Each network's kernels by their time, and the sums of its parts."""
    import torch
    from speed_table import Row, job_of

    from latentcli.jobs.inference.engine import load_engine

    found = {}
    for model, op, side, batch in day.sizes.kernels:
        engine = load_engine(model, device=day.device, random_weights=True)
        if not engine.accelerator.gpu:
            torch.set_num_threads(1)  # the profiler sees this thread alone
        call = job_of(engine, Row(model, op, side, batch))
        for _ in range(3):
            call()
        engine.accelerator.synchronize()
        rows = kernels_of(call, engine.accelerator)
        total = sum(row["ms"] for row in rows)
        parts = dict.fromkeys((*PARTS, "elementwise"), 0.0)
        for row in rows:
            parts[row["part"]] += row["ms"]
        found[f"{model} {op} {side}x{side} batch {batch}"] = {
            "ms": total,
            "launches": sum(row["calls"] for row in rows),
            "parts": parts,
            "kernels": rows[:40],
        }
    return found


def kernels_of(call: Callable[[], object], accelerator: Any) -> list[dict[str, Any]]:
    """What one call ran, the longest first; kernels on a GPU, operators on a CPU."""
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    asked = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if accelerator.gpu else [])]
    with profile(activities=asked) as profiler:
        call()
        accelerator.synchronize()
    wanted = DeviceType.CUDA if accelerator.gpu else DeviceType.CPU
    spent = "self_device_time_total" if accelerator.gpu else "self_cpu_time_total"
    rows = [
        {
            "name": event.key,
            "part": part_of(event.key),
            "calls": event.count,
            "ms": getattr(event, spent) / 1000,
        }
        for event in profiler.key_averages()
        if event.device_type == wanted and getattr(event, spent) > 0
    ]
    return sorted(rows, key=lambda row: -row["ms"])


def part_of(kernel: str) -> str:
    """The part of a network that a kernel's name speaks of."""
    name = kernel.lower()
    fits = (part for part, words in PARTS.items() if any(word in name for word in words))
    return next(fits, "elementwise")


def measure_depthwise(day: Day) -> dict[str, Any]:
    """Milliseconds of the depthwise convolution as torch does it, by dtype and layout."""
    import torch
    from torch.nn.functional import conv2d

    from latentcli.jobs.bench.ceilings import seconds_of
    from latentcli.jobs.inference.accelerator import pick_device

    accelerator = pick_device(day.device)
    accelerator.prepare()
    (count, channels, side), found = day.sizes.depthwise, {}
    with torch.inference_mode():
        for dtype in (torch.bfloat16, torch.float32):
            for layout in (torch.contiguous_format, torch.channels_last):
                options: dict[str, Any] = {"device": accelerator.device, "dtype": dtype}
                x = torch.randn(count, channels, side, side, **options).to(memory_format=layout)
                weight = torch.randn(channels, 1, 7, 7, **options).to(memory_format=layout)

                def call(x: Any = x, weight: Any = weight) -> Any:
                    return conv2d(x, weight, padding=3, groups=channels)

                seconds_of(call, 3, accelerator)
                name = f"{dtype} {layout}".replace("torch.", "")
                found[name] = 1000 * seconds_of(call, day.sizes.repeats, accelerator)
                found[name] /= day.sizes.repeats
    return {"shape": [count, channels, side, side], "ms": found}


def measure_compile(day: Day) -> dict[str, Any]:
    """What --compile on gives: seconds to make each way ready, and milliseconds of a batch."""
    from compile_ways import ways_of

    from latentcli.jobs.inference.engine import load_engine

    found = {}
    for model, op, side, batch in day.sizes.compiled:
        engine = load_engine(model, device=day.device, random_weights=True)
        name = f"{model} {op} {side}x{side} batch {batch}"
        found[name] = ways_of(engine, op, side, batch, day.sizes.repeats)
    return found


OWN_STEPS: Mapping[str, Callable[[Day], dict[str, Any]]] = {
    "ceilings": measure_ceilings,
    "kernels": measure_kernels,
    "depthwise": measure_depthwise,
    "compile": measure_compile,
    "weights": make_weights,
    "inputs": make_inputs,
}
"""Those that are functions of this file, each run in a process of its own."""


LIMITS: Mapping[str, float] = {"compile": 300}
"""Seconds of those that take long."""


def run_step(step: Step, require_cuda: bool) -> dict[str, Any]:
    """A step's process to its end, or to its time limit; its document, or what it said."""
    begin = time.perf_counter()
    required = {"LATENTCLI_REQUIRE_CUDA": "1"} if require_cuda else {}
    process = subprocess.Popen(
        [sys.executable, *step.words],
        cwd=ROOT,
        env={**os.environ, **required},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    late = False
    try:
        output, errors = process.communicate(timeout=step.limit)
    except subprocess.TimeoutExpired:
        late = True
        os.killpg(process.pid, signal.SIGKILL)
        output, errors = process.communicate()
    told: dict[str, Any] = {
        "seconds": round(time.perf_counter() - begin, 1),
        "exit_code": process.returncode,
        "timed_out": late,
    }
    try:
        told["document"] = json.loads(output)
    except ValueError:
        told["output"] = output[-WORDS_KEPT:]
    if process.returncode:
        told["errors"] = errors[-WORDS_KEPT:]
    return told


def whole_jobs(steps: Mapping[str, Mapping[str, Any]], sides: Iterable[int]) -> dict[str, Any]:
    """By side, the job's rate over that of its slowest stage alone; those that were measured."""
    found = {}
    for side in sides:
        alone, job = (steps.get(f"{name}-{side}", {}).get("document") for name in ("stages", "job"))
        if alone and job and "image_stages_alone" in alone and "images_per_second" in job:
            slowest = min(alone["image_stages_alone"], alone["model_alone"])
            rate = job["images_per_second"]
            found[str(side)] = {"job": rate, "slowest_stage": slowest, "ratio": rate / slowest}
            decoded = steps.get(f"decoded-{side}", {}).get("document") or {}
            if "images_per_second" in decoded:
                found[str(side)]["decoded_on_gpu"] = decoded["images_per_second"]
    return found


def summary(document: Mapping[str, Any]) -> Iterable[str]:
    """What a person wants to see first."""
    for name, step in document["steps"].items():
        how = "timed out" if step["timed_out"] else f"exit code {step['exit_code']}"
        yield f"{name:12} {step['seconds']:6.1f} s  {how}"
    for op in ("encode", "decode"):
        table = document["steps"].get(op, {}).get("document", {})
        for row in table.get("rows", ()):
            # A baseline that memory is too short for leaves nothing to compare with.
            alone = row["speedup"] is None
            faster = "" if alone else f", {row['speedup']:.2f}x of {table['baseline']}"
            saved = "" if alone else f" ({-row['memory_reduction']:+.0%})"
            yield (
                f"{op} {row['resolution']} batch {row['batch']} {row['model']}:"
                f" {row['ms_per_batch']:.2f} ms{faster},"
                f" {row['matrix_share']:.0%} of the matrix rate,"
                f" peak {row['peak_memory_mib']:,.0f} MiB{saved}"
            )
    for side, job in document["whole_jobs"].items():
        there = job.get("decoded_on_gpu")
        more = "" if there is None else f"; decoded on the GPU {there:,.0f} images/s"
        yield (
            f"job to {side}: {job['job']:,.0f} images/s, {job['ratio']:.2f} of the slowest"
            f" stage{more}"
        )


def run_day(day: Day, path: Path, only: Sequence[str]) -> int:
    """All steps; how many of them failed."""
    steps: dict[str, dict[str, Any]] = {}
    document: dict[str, Any] = {"device": day.device, "sizes": asdict(day.sizes)}
    for step in steps_of(day):
        if only and step.name not in only:
            continue
        print(f"{step.name} ...", file=sys.stderr, flush=True)
        steps[step.name] = run_step(step, require_cuda=day.device != "cpu")
        document |= {"steps": steps, "whole_jobs": whole_jobs(steps, day.sizes.sides)}
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print("\n".join(summary(document)))
    return sum(step["exit_code"] != 0 for step in steps.values())


def main() -> int:
    """Runs the steps; the exit code is 1 where one failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, cpu")
    parser.add_argument("--small", action="store_true", help="other models and sizes, in seconds")
    parser.add_argument("--json", type=Path, default=Path("gpu_day.json"))
    parser.add_argument("--only", nargs="*", default=(), metavar="STEP", help="these steps alone")
    parser.add_argument("--work", type=Path, help="a folder on a local disk (a temporary one)")
    parser.add_argument("--step", choices=OWN_STEPS, help="one step here; prints its document")
    words = parser.parse_args()
    if words.step:
        print(json.dumps(OWN_STEPS[words.step](Day(words.device, words.small, words.work))))
        return 0
    with tempfile.TemporaryDirectory(prefix="latentcli-", dir=words.work) as folder:
        failed = run_day(Day(words.device, words.small, Path(folder)), words.json, words.only)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
