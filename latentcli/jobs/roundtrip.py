"""Pictures or clips through models and back, in memory; how close they come back, out."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from latentcli.core.errors import LatentCliError, UsageError, WeightsError
from latentcli.core.types import LatentSpec
from latentcli.images.codec import DecodePolicy
from latentcli.images.preprocess import PreprocessSpec
from latentcli.jobs.clips import ClipRecipe
from latentcli.jobs.config import RoundtripJob, allowed_failures, check_choices
from latentcli.jobs.encode_plan import (
    refuse_decoder,
    refuse_decoder_preset,
    refuse_encoder,
)
from latentcli.jobs.engine import Engine, inference_config, load_engine
from latentcli.jobs.intake import Intake, Recipe, unit_tasks
from latentcli.jobs.loader import MANY, pick_workers
from latentcli.jobs.media import SUFFIXES, Found, check_clip_options, find_media
from latentcli.jobs.meter import Meter
from latentcli.jobs.roundtrip_stream import (
    Contender,
    Roundtrip,
    compare_clips,
    compare_images,
    name_of,
)
from latentcli.jobs.signals import stop_on_signals
from latentcli.jobs.sizes import preprocess_fields, preprocess_spec
from latentcli.jobs.talk import SILENT, Talk
from latentcli.jobs.tar_intake import TarIntake
from latentcli.metrics.psnr import summarise
from latentcli.models.registry import find_preset
from latentcli.shards.inputs import InputList, write_inputs
from latentcli.shards.plan import assign_units

UNIT = 1000
"""Inputs to a unit of the list that the workers look rows up in."""


def run_roundtrip(job: RoundtripJob, talk: Talk = SILENT) -> dict[str, Any]:
    """The --json document of `roundtrip`. All models see the same pixels of every picture."""
    check_choices(job)
    allowed_failures(job.max_bad, 0)
    inference_config(job)
    check_models(job)
    found = find_media(job.sources, job.media, talk)
    check_clip_options(job, found.media)
    if found.tars and found.media == "clips":
        raise UsageError("roundtrip takes clips as files, not in tars: unpack them first.")
    contenders = load_contenders(job)
    preprocess = preprocess_spec(job, divisor(contenders))
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="latentcli-"))
        path = Path(folder) / "inputs.jsonl"
        write_inputs(path, assign_units(found.inputs, 1 if found.tars else UNIT))
        inputs = InputList.open(path)
        stop = stack.enter_context(stop_on_signals("Nothing was kept."))
        total, sound = len(found.inputs), None
        if found.media == "clips":
            meter = Meter("roundtrip", total, talk.progress, noun="frames")
            run = Roundtrip(job, contenders, meter, stop)
            recipe = ClipRecipe(job.max_pixels, preprocess, job.stride, job.frames)
            sound = compare_clips(run, inputs, recipe)
        else:
            workers = pick_workers(job.workers, MANY if found.tars else total)
            meter = Meter(
                "roundtrip",
                None if found.tars else total,
                talk.progress,
                workers=workers,
                lanes={"read": 1} if found.tars else {},
                device=contenders[0].encoder.device.type,
            )
            run = Roundtrip(job, contenders, meter, stop)
            recipes = Recipe(DecodePolicy(job.alpha, job.max_pixels), preprocess)
            intake = Intake(inputs, recipes)
            tasks = unit_tasks(intake, range(inputs.units))
            if found.tars:
                tasks = TarIntake(SUFFIXES["images"], meter).tasks(inputs)
            limit = job.time_limit or math.inf
            compare_images(run, intake, tasks, workers, limit)
    if not contenders[0].figures["psnr"]:
        raise LatentCliError(
            f"None of the {total} inputs could be used; the first: {run.failures[0]['error']}."
        )
    return document(run, found, sound, preprocess)


def check_models(job: RoundtripJob) -> None:
    """UsageError for what is wrong with the models, before any weights are looked for."""
    decoders = [with_weights(decoder)[0] for decoder in job.decoders]
    names = [Path(name).name for name in (*job.models, *decoders)]
    if len(set(names)) < len(names):
        raise UsageError(
            "Two --model or --decoder have the same name; their figures could not be told apart."
        )
    if job.weights is not None and len(job.models) > 1:
        raise UsageError("--weights belongs to one model; give one --model with it.")
    if job.decoders and len(job.models) > 1:
        raise UsageError("--decoder decodes what one --model encoded; give one --model with it.")
    for name in job.models:
        refuse_decoder_preset(name)
    encoder = find_preset(job.models[0])
    for name in decoders:
        preset = find_preset(name)
        if encoder is not None and preset is not None:
            check_pair(encoder.name, encoder.spec.space_id(encoder.state), preset.name, preset.spec)


def check_pair(encoder: str, made: str, decoder: str, spec: LatentSpec) -> None:
    """UsageError, with both ids named, where a decoder is for another latent space."""
    taken = spec.space_id(spec.state)
    if made != taken:
        raise UsageError(
            f"{encoder} gives latents of {made}, but {decoder} decodes {taken}; --decoder must be"
            " of the same latent space."
        )


def load_contenders(job: RoundtripJob) -> list[Contender]:
    """All models of the comparison; UsageError where one lacks the half that it is here for.

    A model that only encodes is no contender itself, but its decoders are.
    """
    engines = [load(job, name, job.weights, job.revision) for name in job.models]
    for engine in engines:
        refuse_decoder(engine)
        if not job.decoders:
            refuse_encoder(engine)
    contenders = [Contender(engine, engine) for engine in engines if engine.model.can_decode]
    for text in job.decoders:
        decoder, encoder = load_decoder(job, text), engines[0]
        refuse_encoder(decoder)
        made = encoder.model.spec
        check_pair(
            name_of(encoder), made.space_id(made.state), name_of(decoder), decoder.model.spec
        )
        contenders.append(Contender(encoder, decoder))
    return contenders


def load(
    job: RoundtripJob, name: str, weights: str | None = None, revision: str | None = None
) -> Engine:
    """A model as the job runs it; --weights and --revision are those of --model alone."""
    return load_engine(name, weights=weights, revision=revision, device=job.device, dtype=job.dtype)


def load_decoder(job: RoundtripJob, text: str) -> Engine:
    """The model of a --decoder; WeightsError says how such a one gets its weights."""
    name, weights = with_weights(text)
    try:
        return load(job, name, weights)
    except WeightsError as error:
        hint = f"For a decoder, write --decoder {name}=PATH where this says --weights PATH."
        raise WeightsError(f"{error}\n{hint}") from error


def with_weights(text: str) -> tuple[str, str | None]:
    """(name, path of the weights or None) of NAME or NAME=PATH; a folder's name may hold a =."""
    name, _, path = (text, "", "") if Path(text).exists() else text.partition("=")
    return name, path or None


def divisor(contenders: Sequence[Contender]) -> int:
    """Sides of pictures that suit every model are multiples of this."""
    engines = [engine for c in contenders for engine in (c.encoder, c.decoder)]
    return math.lcm(*(engine.model.spec.size_divisor for engine in engines))


def document(
    run: Roundtrip, found: Found, clips: int | None, preprocess: PreprocessSpec
) -> dict[str, Any]:
    """The --json document, with all settings that change the figures."""
    job, meter, size = run.job, run.meter, preprocess.size
    resized = preprocess_fields(preprocess)
    return {
        "media": found.media,
        "clips": clips,
        "images": len(run.contenders[0].figures["psnr"]),
        "models": [figures(contender) for contender in run.contenders],
        "delta": delta(run.contenders),
        "failed": len(run.failures),
        "failures": run.failures,
        "left_out": found.left_out,
        "saved": job.save,
        "settings": {
            "size": "x".join(map(str, size)) if size else None,
            "resize": resized["resize"],
            "buckets": resized.get("buckets"),
            "divisor": divisor(run.contenders),
            "filter": resized["filter"],
            "latents": "the model's own (mode), rounded to bf16",
            "stride": job.stride if clips is not None else None,
            "frames": job.frames,
            "num_frames": job.num_frames,
            **decode_settings(run),
            "psnr": "per image, clamped, rounded to 8 bits, peak 255",
            "ssim": "per image, 7x7 uniform windows, sample covariance (scikit-image's default)",
            "ssim_gaussian": "per image, 11x11 Gaussian windows, sigma 1.5 (the paper's)",
        },
        "seconds": round(time.perf_counter() - meter.started, 3),
        **meter.paces(),
    }


def decode_settings(run: Roundtrip) -> dict[str, Any]:
    """How diffusion decoders were run; None where there is none among the models."""
    names = ("steps", "sampler", "schedule", "pdg", "seed")
    if not any(contender.decoder.model.is_diffusion for contender in run.contenders):
        return dict.fromkeys((*names, "pdg_strength"))
    told = {name: getattr(run.job, name) for name in names}
    return told | {"pdg_strength": run.job.pdg_strength if run.job.pdg else None}


def figures(contender: Contender) -> dict[str, Any]:
    """One model's part of the document."""
    engine = contender.decoder
    return {
        "model": contender.name,
        "encoder": name_of(contender.encoder),
        "decoder": name_of(engine),
        "geometry": engine.model.spec.geometry,
        "latent_space": engine.model.spec.space,
        "weights_sha256": contender.encoder.info.weights_sha256,
        "decoder_sha256": engine.info.weights_sha256,
        "device": engine.device_name,
        "dtype": engine.dtype,
        **{name: rounded(v) if v else None for name, v in contender.figures.items()},
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
    pairs = zip(a.figures["psnr"], b.figures["psnr"], strict=True)
    return [0.0 if x == y else x - y for x, y in pairs]
