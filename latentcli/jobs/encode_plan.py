"""An encode job and a loaded model in; the resolved spec, the store and its first manifest out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import latentcli
from latentcli.core.errors import UsageError
from latentcli.images.codec import DecodePolicy
from latentcli.images.preprocess import PreprocessSpec, parse_size, resizer
from latentcli.jobs.config import EncodeJob, ImageIntake
from latentcli.jobs.engine import DEFAULT_BATCH, Engine
from latentcli.jobs.loader import Recipe
from latentcli.models.presets import load_preset, preset_names
from latentcli.models.registry import find_preset
from latentcli.shards.manifest import Manifest

BATCH_PIXELS = 2**20
"""Pixels per picture, on average, that a full batch may have: larger pictures go in fewer."""


@dataclass(frozen=True, slots=True)
class EncodePlan:
    """Everything about an encode job that is settled before the first input is read."""

    store: Path
    manifest: Manifest
    recipe: Recipe
    batch_size: int


def plan_encode(job: EncodeJob, engine: Engine) -> EncodePlan:
    """The plan; UsageError where options contradict each other or the model cannot encode."""
    refuse_decoder(engine)
    if job.latents == "moments" and job.sample is not None:
        raise UsageError("--latents moments stores mean and logsnr; leave out --sample.")
    policy = DecodePolicy(job.alpha, job.max_pixels)
    preprocess = preprocess_spec(job, engine.model.spec.size_divisor)
    batch_size = job.batch_size or DEFAULT_BATCH[engine.device.type]
    spec = job_spec(job, engine, preprocess, batch_size)
    return EncodePlan(
        store=Path(job.output or default_store(job.sources, engine.info.name)),
        manifest=Manifest(
            tool=f"latentcli {latentcli.__version__}",
            spec=spec,
            model=model_identity(engine),
            latent_space=engine.model.spec.space_id(job.latents),
            latent={
                "channels": engine.model.spec.channels,
                "downscale": engine.model.spec.downscale,
                "size_divisor": engine.model.spec.size_divisor,
                "whitening": whitening(engine),
            },
            preprocessing=spec["preprocess"],
        ),
        recipe=Recipe(policy, preprocess),
        batch_size=batch_size,
    )


def job_spec(
    job: EncodeJob, engine: Engine, preprocess: PreprocessSpec, batch_size: int
) -> dict[str, Any]:
    """What the numbers in the shards depend on, the machine and its libraries apart."""
    info = engine.info
    return {
        "model": {
            "family": info.family,
            "config": dict(info.config),
            "weights_sha256": info.weights_sha256,
            "latent_space": engine.model.spec.space,
        },
        "latents": {"state": job.latents, "sample": job.sample, "dtype": "bf16"},
        "decode_image": {"alpha": job.alpha, "max_pixels": job.max_pixels},
        "preprocess": {
            "resize": "crop" if preprocess.size else "none",
            "size": list(preprocess.size) if preprocess.size else None,
            "filter": preprocess.filter if preprocess.size else None,
            "resizer": resizer(preprocess.filter) if preprocess.size else None,
            "divisor": preprocess.divisor,
        },
        "encode": {
            "dtype": engine.dtype,
            "batch_size": batch_size,
            "batch_pixels": batch_size * BATCH_PIXELS,
        },
        "write": {"format": "safetensors", "samples_per_shard": job.samples_per_shard},
    }


def model_identity(engine: Engine) -> dict[str, Any]:
    """Which model made a store, for people and for decoding it."""
    info = engine.info
    return {
        "name": info.preset_name or info.name,
        "family": info.family,
        "repo": info.repo,
        "revision": info.revision,
        "weights_sha256": info.weights_sha256,
    }


def whitening(engine: Engine) -> dict[str, list[float]]:
    """Per channel, whitened latents are (raw - mean) / std; so raw stores need no model."""
    channels = engine.model.spec.channels
    mean = engine.model.dewhiten(torch.zeros(1, channels, 1, 1)).flatten()
    std = engine.model.dewhiten(torch.ones(1, channels, 1, 1)).flatten() - mean
    return {"mean": mean.tolist(), "std": std.tolist()}


def batch_elements(batch_size: int) -> int:
    """Values that a batch of pictures may have."""
    return 3 * batch_size * BATCH_PIXELS


def preprocess_spec(job: ImageIntake, divisor: int) -> PreprocessSpec:
    """--size, --resize and --filter resolved against a model's size rule."""
    if job.resize == "none" and job.size is not None:
        raise UsageError(
            f"--resize none keeps each picture's own size; leave out --size {job.size}."
        )
    if job.resize == "crop" and job.size is None:
        raise UsageError("--resize crop needs a --size, such as --size 256 or --size 512x256.")
    size = parse_size(job.size) if job.size is not None else None
    return PreprocessSpec(size, divisor, job.filter)


def refuse_decoder(engine: Engine) -> None:
    """UsageError, naming models that can, where the model cannot encode."""
    if not engine.model.can_encode:
        raise no_encoder(engine.info.name)


def refuse_decoder_preset(model: str) -> None:
    """`refuse_decoder` for a preset, before its weights are looked for."""
    preset = find_preset(model)
    if preset is not None and not preset.can_encode:
        raise no_encoder(preset.name)


def no_encoder(name: str) -> UsageError:
    """The error for a model that is a decoder alone."""
    able = [preset for preset in preset_names() if load_preset(preset).can_encode]
    return UsageError(f"{name} is a decoder alone and cannot encode; {', '.join(able)} can.")


def default_store(sources: tuple[str, ...], model: str) -> str:
    """<name>.<model>.latents, named after the first source."""
    source = Path(sources[0].removeprefix("@")).resolve()
    name = source.stem if source.is_file() else source.name.split("*")[0].rstrip(".")
    return f"{name or 'images'}.{Path(model).name}.latents"
