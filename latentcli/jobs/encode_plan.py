"""An encode job and a loaded model in; the resolved spec, the store and its first manifest out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import latentcli
from latentcli.core.errors import UsageError
from latentcli.images.codec import DecodePolicy
from latentcli.images.preprocess import PreprocessSpec, parse_size
from latentcli.jobs.config import EncodeJob, ImageIntake
from latentcli.jobs.engine import DEFAULT_BATCH, Engine
from latentcli.jobs.loader import Recipe
from latentcli.models.presets import load_preset, preset_names
from latentcli.shards.manifest import Manifest


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
            model=spec["model"],
            latent_space=engine.model.spec.space_id(job.latents),
            latent={
                "channels": engine.model.spec.channels,
                "downscale": engine.model.spec.downscale,
                "size_divisor": engine.model.spec.size_divisor,
            },
            preprocessing=spec["preprocess"],
        ),
        recipe=Recipe(policy, preprocess),
        batch_size=batch_size,
    )


def job_spec(
    job: EncodeJob, engine: Engine, preprocess: PreprocessSpec, batch_size: int
) -> dict[str, Any]:
    """All that the numbers in the shards depend on, and nothing else."""
    info = engine.info
    return {
        "model": {
            "name": info.preset_name or info.name,
            "family": info.family,
            "repo": info.repo,
            "revision": info.revision,
            "weights_sha256": info.weights_sha256,
        },
        "latents": {"state": job.latents, "sample": job.sample, "dtype": "bf16"},
        "decode_image": {"alpha": job.alpha, "max_pixels": job.max_pixels},
        "preprocess": {
            "resize": "crop" if preprocess.size else "none",
            "size": list(preprocess.size) if preprocess.size else None,
            "filter": preprocess.filter if preprocess.size else None,
            "divisor": preprocess.divisor,
        },
        "encode": {"dtype": engine.dtype, "batch_size": batch_size},
        "write": {"format": "safetensors", "samples_per_shard": job.samples_per_shard},
    }


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
        able = [name for name in preset_names() if load_preset(name).can_encode]
        raise UsageError(
            f"{engine.info.name} is a decoder alone and cannot encode; {', '.join(able)} can."
        )


def default_store(sources: tuple[str, ...], model: str) -> str:
    """<name>.<model>.latents, named after the first source."""
    name = Path(sources[0].removeprefix("@")).resolve().name.split("*")[0].rstrip(".") or "images"
    return f"{Path(name).stem}.{Path(model).name}.latents"
