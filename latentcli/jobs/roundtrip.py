"""Pictures through one or more models and back, in memory; how close they come back, out."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latentcli.core.errors import LatentCliError, UsageError
from latentcli.core.types import Picture
from latentcli.images.codec import IMAGE_SUFFIXES, DecodePolicy, encode_image
from latentcli.jobs.batching import batches
from latentcli.jobs.config import RoundtripJob, allowed_failures, check_choices
from latentcli.jobs.encode_plan import (
    batch_elements,
    preprocess_spec,
    refuse_decoder,
    refuse_decoder_preset,
)
from latentcli.jobs.encode_stream import timed
from latentcli.jobs.engine import (
    DEFAULT_BATCH,
    Engine,
    decode_batch,
    encode_batch,
    inference_config,
    load_engine,
)
from latentcli.jobs.loader import Intake, Recipe, open_chunks, pick_workers
from latentcli.jobs.meter import Meter
from latentcli.jobs.signals import StopRequest, stop_on_signals
from latentcli.jobs.talk import SILENT, Talk
from latentcli.metrics.psnr import psnr, summarise
from latentcli.metrics.ssim import ssim
from latentcli.shards.inputs import InputList, write_inputs
from latentcli.shards.plan import assign_units, find_inputs
from latentcli.shards.write import atomic_write

UNIT = 1000
"""Inputs to a unit of the list that the workers look rows up in."""


@dataclass(slots=True)
class Contender:
    """One model of the comparison and its figures so far."""

    engine: Engine
    psnr: list[float] = field(default_factory=list)
    ssim: list[float] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Short enough for a table and a folder."""
        return self.engine.info.preset_name or Path(self.engine.info.name).name


@dataclass(frozen=True, slots=True)
class Roundtrip:
    """What the functions below work with."""

    job: RoundtripJob
    contenders: Sequence[Contender]
    meter: Meter
    stop: StopRequest


def run_roundtrip(job: RoundtripJob, talk: Talk = SILENT) -> dict[str, Any]:
    """The --json document of `roundtrip`. All models see the same pixels of every picture."""
    check_choices(job)
    allowed_failures(job.max_bad, 0)
    inference_config(job)
    if len({Path(name).name for name in job.models}) < len(job.models):
        raise UsageError("Two --model have the same name; their figures could not be told apart.")
    if job.weights is not None and len(job.models) > 1:
        raise UsageError("--weights belongs to one model; give one --model with it.")
    for name in job.models:
        refuse_decoder_preset(name)
    found = find_inputs(job.sources, IMAGE_SUFFIXES)
    contenders = [Contender(engine) for engine in load_engines(job)]
    preprocess = preprocess_spec(job, math.lcm(*divisors(contenders)))
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="latentcli-"))
        path = Path(folder) / "inputs.jsonl"
        write_inputs(path, assign_units(found, UNIT))
        recipe = Recipe(DecodePolicy(job.alpha, job.max_pixels), preprocess)
        intake = Intake(InputList.open(path), recipe)
        stop = stack.enter_context(stop_on_signals("Nothing was kept."))
        workers = pick_workers(job.workers, len(found))
        meter = Meter("roundtrip", len(found), talk.progress, max(workers, 1))
        run = Roundtrip(job, contenders, meter, stop)
        failures = compare_all(run, intake, workers)
    if not contenders[0].psnr:
        raise LatentCliError(
            f"None of the {len(found)} inputs could be used; the first: {failures[0]['error']}."
        )
    return document(run, failures, preprocess.size)


def load_engines(job: RoundtripJob) -> list[Engine]:
    """All models of the comparison; UsageError where one cannot do both ways."""
    engines = [
        load_engine(
            name,
            weights=job.weights,
            revision=job.revision,
            device=job.device,
            dtype=job.dtype,
        )
        for name in job.models
    ]
    for engine in engines:
        refuse_decoder(engine)
    return engines


def divisors(contenders: Sequence[Contender]) -> list[int]:
    """Size divisor of each model."""
    return [contender.engine.model.spec.size_divisor for contender in contenders]


def compare_all(run: Roundtrip, intake: Intake, workers: int) -> list[dict[str, str]]:
    """The whole stream; gives the inputs that failed."""
    failures: list[dict[str, str]] = []

    def pictures() -> Iterator[Picture]:
        for chunk in timed(chunks, run.meter):
            for row, pixels in chunk.pictures():
                if pixels is not None:
                    yield Picture(row, pixels)
                    continue
                failures.append({"key": row.key, "error": f"{row.stage}: {row.error}"})
                if run.job.on_error == "stop":
                    raise LatentCliError(
                        f"{row.source} failed at {row.stage}: {row.error} (--on-error stop)."
                    )
                run.meter.advance(1, 1)

    size = run.job.batch_size or DEFAULT_BATCH[run.contenders[0].engine.device.type]
    most = batch_elements(size)
    with open_chunks(intake, range(intake.inputs.units), workers) as chunks:
        for batch in batches(pictures(), lambda picture: picture.pixels, size, most):
            run.stop.check()
            compare_batch(run, batch)
            run.meter.advance(len(batch))
    return failures


def compare_batch(run: Roundtrip, batch: Sequence[Picture]) -> None:
    """encode, round to bfloat16 as a store would, decode, measure: for every model."""
    pixels = torch.stack([picture.pixels for picture in batch])
    keys = [picture.row.key for picture in batch]
    for contender in run.contenders:
        with run.meter.stage("encode", len(batch)):
            latent = encode_batch(contender.engine, pixels, keys, "whitened")["latent"]
        with run.meter.stage("decode", len(batch)):
            stored = latent.bfloat16().float()
            decoded = decode_batch(contender.engine, stored, keys, run.job)
        with run.meter.stage("metrics", len(batch)):
            contender.psnr += psnr(pixels, decoded).tolist()
            if min(pixels.shape[2:]) >= 11:
                contender.ssim += ssim(pixels, decoded).tolist()
        if run.job.save is not None:
            save(run, Path(run.job.save) / contender.name, keys, decoded)


def save(run: Roundtrip, folder: Path, keys: Sequence[str], decoded: Tensor) -> None:
    """Reconstructions as PNG under <save>/<model>/<key>.png."""
    with run.meter.stage("write", len(keys)):
        for key, picture in zip(keys, decoded, strict=True):
            path = folder / f"{key}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(path, [encode_image(picture, "png")])


def document(
    run: Roundtrip, failures: list[dict[str, str]], size: tuple[int, int] | None
) -> dict[str, Any]:
    """The --json document, with all settings that change the figures."""
    job, meter = run.job, run.meter
    return {
        "images": len(run.contenders[0].psnr),
        "models": [figures(contender) for contender in run.contenders],
        "delta": delta(run.contenders),
        "failed": len(failures),
        "failures": failures,
        "saved": job.save,
        "settings": {
            "size": "x".join(map(str, size)) if size else None,
            "resize": "crop" if size else "none",
            "divisor": math.lcm(*divisors(run.contenders)),
            "filter": job.filter if size else None,
            "latents": "whitened mode, rounded to bf16",
            "steps": job.steps,
            "sampler": job.sampler,
            "schedule": job.schedule,
            "pdg": job.pdg,
            "pdg_strength": job.pdg_strength if job.pdg else None,
            "seed": job.seed,
            "psnr": "per image, clamped, rounded to 8 bits, peak 255",
        },
        "seconds": round(time.perf_counter() - meter.started, 3),
        "images_per_second": round(meter.final_rate, 2),
        "stages": meter.report(),
        "bottleneck": meter.bottleneck(),
    }


def figures(contender: Contender) -> dict[str, Any]:
    """One model's part of the document."""
    engine = contender.engine
    return {
        "model": contender.name,
        "geometry": engine.model.spec.geometry,
        "latent_space": engine.model.spec.space,
        "weights_sha256": engine.info.weights_sha256,
        "device": engine.device_name,
        "dtype": engine.dtype,
        "psnr": rounded(contender.psnr),
        "ssim": rounded(contender.ssim) if contender.ssim else None,
    }


def rounded(values: Sequence[float]) -> dict[str, float | None]:
    """The summary of a figure, with infinities (identical pictures) as None."""
    summary = summarise(values)
    return {k: round(v, 4) if math.isfinite(v) else None for k, v in summary.items()}


def delta(contenders: Sequence[Contender]) -> list[dict[str, Any]] | None:
    """Mean and std of the PSNR difference of each model to the first one."""
    first, *others = contenders
    if not others:
        return None
    return [
        {"model": other.name, "against": first.name, "psnr": rounded(differences(other, first))}
        for other in others
    ]


def differences(a: Contender, b: Contender) -> list[float]:
    """PSNR of a minus PSNR of b, picture by picture; 0 where both are identical to the source."""
    pairs = zip(a.psnr, b.psnr, strict=True)
    return [0.0 if x == y else x - y for x, y in pairs]
