"""Resolves an encode job and a loaded model into the spec, the store and its first manifest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

import torch

import latentcli
from latentcli.core.errors import StoreError, UsageError
from latentcli.images.codec import DecodePolicy
from latentcli.images.preprocess import PreprocessSpec
from latentcli.jobs.config import EncodeJob
from latentcli.jobs.inference.batch_size import BATCH_PIXELS, default_batch_size
from latentcli.jobs.inference.capabilities import check_state, refuse_decoder
from latentcli.jobs.inference.compiling import check_sizes, known_sizes, on_for
from latentcli.jobs.inference.engine import Engine
from latentcli.jobs.inference.jpeg_decoder import JpegDecoder, check_decoder
from latentcli.jobs.loader.clip_frames import ClipRecipe
from latentcli.jobs.loader.find_media import PER_SHARD, SUFFIXES, FoundMedia
from latentcli.jobs.loader.prepare import Recipe
from latentcli.jobs.loader.reader import Reader
from latentcli.jobs.loader.readers import READERS
from latentcli.jobs.loader.sizes import (
    preprocess_fields,
    preprocess_spec,
    size_filter,
    size_filter_fields,
    stored_gaps,
)
from latentcli.jobs.loader.table_reader import absolute_root
from latentcli.jobs.runtime.meter import Meter
from latentcli.jobs.runtime.stdio import STDIN, go_on
from latentcli.latents.schema import MOMENTS, store_dtype_of
from latentcli.shards.sources.expand import STDIN_LIST
from latentcli.shards.storage.paths import AnyPath, is_remote, path_of
from latentcli.shards.store.manifest import Manifest, read_manifest

NEW: Mapping[str, Any] = MappingProxyType({})
"""The spec that is there where no store is."""


@dataclass(frozen=True, slots=True)
class EncodePlan:
    """Everything about an encode job that is settled before the first input is read."""

    store: AnyPath
    manifest: Manifest
    recipe: Recipe
    state: str
    """Of the latents that are stored."""
    batch_size: int
    samples_per_shard: int
    """1 where an input is packed, and so a whole unit."""
    clips: ClipRecipe | None = None
    """What is done to each clip, where the inputs are clips."""
    kind: str = "files"
    """What reads the inputs, of READERS."""
    image_field: str | None = None
    """What the user says of packed inputs, as the fields of Reader."""
    image_root: str | None = None

    def reader(self, meter: Meter, check: Callable[[], None] = go_on) -> Reader:
        """Reads the inputs; the arguments are those of Reader."""
        return READERS[self.kind](
            *(SUFFIXES[self.media], meter, check),
            image_field=self.image_field,
            image_root=self.image_root,
        )

    @property
    def packed(self) -> bool:
        """Whether an input, such as a tar, holds many samples."""
        return READERS[self.kind].packed

    @property
    def store_dtype(self) -> str:
        """What latents are stored in, of STORE_DTYPES."""
        return store_dtype_of(self.manifest.spec)

    @property
    def media(self) -> str:
        """images or clips."""
        return "images" if self.clips is None else "clips"


def with_model_defaults(job: EncodeJob, engine: Engine) -> EncodeJob:
    """The job with the model's own state of latents, and its dtype, filled in.

    UsageError where the model cannot encode, or has not what the job asks for.
    """
    refuse_decoder(engine)
    model, name = engine.model, engine.info.name
    job = replace(job, latents=job.latents or model.spec.state, dtype=dtype_of(job, engine))
    if job.latents == "moments" and job.sample is not None:
        raise UsageError("--latents moments stores the whole posterior; leave out --sample.")
    check_state(job.latents, engine)
    if model.moments == ("mean",) and (job.latents == "moments" or job.sample is not None):
        asked = "--latents moments" if job.latents == "moments" else "--sample"
        raise UsageError(
            f"{name} has a deterministic encoder: its posterior has no variance. Leave out {asked}."
        )
    if job.class_token and not model.predicts_class:
        raise UsageError(
            f"{name} predicts no class token; the dinac_ae presets do. Leave out --class-token."
        )
    if job.class_token and not engine.accelerator.has_bf16():
        raise UsageError(
            f"--class-token is computed in bfloat16, which {engine.device_name} does not support."
            " Leave it out, or use another device."
        )
    return job


def plan_encode(
    job: EncodeJob,
    engine: Engine,
    media: str = "images",
    kind: str = "files",
    *,
    there: Mapping[str, Any] = NEW,
    stream: bool = False,
) -> EncodePlan:
    """The plan of a settled job; UsageError where options contradict each other.

    `there` is the spec of a store to go on with. A packed input is a unit, unless of a `stream`.
    """
    whole = READERS[kind].packed and not stream
    if whole and job.samples_per_shard is not None:
        raise UsageError(
            f"Each {READERS[kind].noun} becomes one shard of the store: leave out"
            " --samples-per-shard."
        )
    policy = DecodePolicy(job.alpha, job.max_pixels, size_filter(job))
    preprocess = preprocess_of(job, engine, there, media)
    batch_size = job.batch_size or stored_batch_size(there)
    batch_size = batch_size or default_batch_size(type(engine.accelerator), preprocess)
    state = job.latents or engine.model.spec.state
    clips = None
    if media == "clips":
        check_clip_job(job)
        clips = ClipRecipe(job.max_pixels, preprocess, job.stride, job.frames, policy.sizes)
        # Video is decoded without its transparency, whatever is asked for.
        job = replace(job, alpha="drop")
    per_shard = None if whole else job.samples_per_shard or PER_SHARD[media]
    job = replace(job, decode_on=decoded_on(job, there, media, engine), samples_per_shard=per_shard)
    spec = job_spec(job, engine, preprocess, batch_size) | clips_spec(clips)
    spec |= kind_spec(kind, job.image_field)
    return EncodePlan(
        store=store_of(job),
        manifest=Manifest(
            tool=f"latentcli {latentcli.__version__}",
            spec=spec,
            model=model_identity(engine),
            latent_space=engine.model.spec.space_id(state),
            latent={
                "channels": engine.model.spec.channels,
                "downscale": engine.model.spec.downscale,
                "size_divisor": engine.model.spec.size_divisor,
                "state": engine.model.spec.state,
                "whitening": whitening(engine),
            },
            preprocessing=spec["preprocess"],
        ),
        recipe=Recipe(policy, preprocess, job.decode_on or "cpu"),
        state=state,
        batch_size=batch_size,
        samples_per_shard=per_shard or 1,
        clips=clips,
        kind=kind,
        image_field=job.image_field,
        image_root=absolute_root(job.image_root),
    )


def check_clip_job(job: EncodeJob) -> None:
    """UsageError where what is for pictures is asked of clips."""
    if job.flip != "none":
        raise UsageError("--flip both is for pictures, and the sources are clips; leave it out.")


def dtype_of(job: EncodeJob, engine: Engine) -> str:
    """The dtype of the networks that encode.

    Where the job says it, that of the model at hand may be another one: on the driver of a cluster,
    which only checks with it.
    """
    return engine.dtype if job.dtype == "auto" else job.dtype


def with_stored(job: EncodeJob, there: Mapping[str, Any]) -> EncodeJob:
    """The job with what loading its model needs of the spec that is there, where it is left open.

    That is the networks' dtype, whether they are compiled, and --max-memory. So a store is gone on
    with where auto means another one.
    """
    limit = stored_number(there, "max_memory")
    return replace(
        job,
        dtype=stored_dtype(there) or "auto" if job.dtype == "auto" else job.dtype,
        compile=stored_compile(there) or "auto" if job.compile == "auto" else job.compile,
        max_memory=str(limit) if limit and job.max_memory is None else job.max_memory,
    )


def with_compile(job: EncodeJob, engine: Engine, found: FoundMedia) -> EncodeJob:
    """The job with what --compile auto means: whether code is worth its making for these inputs."""
    if job.compile != "auto":
        return job
    count = None if found.packed or found.media == "clips" else len(found.inputs)
    sizes = known_sizes(preprocess_spec(job, engine.model.spec.size_divisor))
    on = on_for(job, engine.accelerator, engine.info.family, sizes, count)
    return replace(job, compile="on" if on else "off")


def stored_batch_size(there: Mapping[str, Any]) -> int | None:
    """The batch size of the store that is there: a job goes on with it, so that it stays one job.

    None where there is none to be read; opening the store then says what is wrong.
    """
    return stored_number(there, "batch_size")


def stored_number(there: Mapping[str, Any], name: str) -> int | None:
    """A number of how the store that is there was encoded."""
    try:
        return int(there["encode"][name])
    except (KeyError, TypeError, ValueError):
        return None


def stored_dtype(there: Mapping[str, Any]) -> str | None:
    """The networks' dtype of the store that is there."""
    try:
        dtype = there["encode"]["dtype"]
    except (KeyError, TypeError):
        return None
    return dtype if dtype in ("bf16", "fp32") else None


def stored_compile(there: Mapping[str, Any]) -> str | None:
    """on or off, as the store that is there was made; None where there is none."""
    encode = there.get("encode")
    if not isinstance(encode, Mapping):
        return None
    return "on" if encode.get("compile") is True else "off"


def preprocess_of(
    job: EncodeJob, engine: Engine, there: Mapping[str, Any], media: str
) -> PreprocessSpec:
    """How a job brings inputs to size; UsageError where its networks cannot be compiled for it."""
    preprocess = preprocess_spec(job, engine.model.spec.size_divisor)
    if job.compile == "on":
        check_sizes(known_sizes(preprocess), "Give --size, or a few buckets with --buckets")
    return reduced_as_there(preprocess, there, media)


def reduced_as_there(
    preprocess: PreprocessSpec, there: Mapping[str, Any], media: str
) -> PreprocessSpec:
    """With the reduction of the store that is there, if any, which may be older than the default.

    What is decoded whole anyway stays so, and frames of clips are.
    """
    if media == "clips":
        return replace(preprocess, reducing_gaps=None)
    if not there or preprocess.reducing_gaps is None:
        return preprocess
    return replace(preprocess, reducing_gaps=stored_gaps(there))


def decoded_on(job: EncodeJob, there: Mapping[str, Any], media: str, engine: Engine) -> str:
    """Where files are decoded: where the job says, or those of the store that is there were.

    UsageError where that cannot be.
    """
    stored = there.get("decode_image")
    kept = stored.get("on") if isinstance(stored, Mapping) else None
    where = job.decode_on or ("gpu" if kept == "gpu" else "cpu")
    if where == "gpu":
        check_decode_on(replace(job, decode_on=where), media)
        check_decoder(engine.accelerator)
    return where


def check_decode_on(job: EncodeJob, media: str) -> None:
    """UsageError where a device is to decode the files, which something else rules out."""
    for given, problem in (
        (media == "clips", "is for pictures, and the sources are clips"),
        (job.max_memory is not None, "takes memory that --max-memory would not count"),
        (job.engine != "local", f"is not for --engine {job.engine}"),
    ):
        if given and job.decode_on == "gpu":
            raise UsageError(f"--decode-on gpu {problem}: leave it out, or change the other.")


def jpegs_of(engine: Engine, plan: EncodePlan) -> JpegDecoder | None:
    """What decodes files on the device, for a plan that has any decoded there."""
    recipe = plan.recipe
    if recipe.decode_on == "cpu":
        return None
    return JpegDecoder(engine.accelerator, recipe.policy, recipe.preprocess)


def stored_spec(store: AnyPath) -> Mapping[str, Any]:
    """The spec of the store that is there; empty where there is none to be read."""
    try:
        return read_manifest(store).spec
    except StoreError:
        return NEW


def clips_spec(clips: ClipRecipe | None) -> dict[str, Any]:
    """The part of the spec that only stores of clips have."""
    if clips is None:
        return {}
    return {"clips": {"stride": clips.stride, "frames": clips.frames}}


def kind_spec(kind: str, image_field: str | None) -> dict[str, Any]:
    """The part of the spec that only stores of packed inputs have."""
    spec: dict[str, Any] = {"tars": True} if READERS[kind].packed else {}
    if kind not in ("files", "tars"):
        spec["kind"] = kind
    if image_field is not None:
        spec["image_field"] = image_field
    return spec


def latents_spec(job: EncodeJob, engine: Engine) -> dict[str, Any]:
    """What is stored of every sample; what is usual goes without saying."""
    spec: dict[str, Any] = {"state": job.latents, "sample": job.sample, "dtype": job.store_dtype}
    if job.latents == "moments" and engine.model.moments != MOMENTS:
        spec["moments"] = list(engine.model.moments)
    if job.class_token:
        spec["class_token"] = True
    if job.flip == "both":
        spec["flip"] = True
    return spec


def job_spec(
    job: EncodeJob, engine: Engine, preprocess: PreprocessSpec, batch_size: int
) -> dict[str, Any]:
    """What the numbers in the shards depend on, the machine and its libraries apart."""
    info, filters = engine.info, size_filter_fields(job)
    return ({"size_filter": filters} if filters else {}) | {
        "model": {
            "family": info.family,
            "config": dict(info.config),
            "weights_sha256": info.weights_sha256,
            "latent_space": engine.model.spec.space,
        },
        "latents": latents_spec(job, engine),
        "decode_image": {"alpha": job.alpha, "max_pixels": job.max_pixels}
        | ({"on": "gpu"} if job.decode_on == "gpu" else {}),
        "preprocess": preprocess_fields(preprocess),
        "encode": {
            "dtype": dtype_of(job, engine),
            "batch_size": batch_size,
            "batch_pixels": batch_size * BATCH_PIXELS,
        }
        | ({} if job.most_bytes is None else {"max_memory": job.most_bytes})
        | ({"compile": True} if job.compile == "on" else {}),
        "write": {"format": job.shard_format, "samples_per_shard": job.samples_per_shard},
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
    """Per channel, the model's own latents are (raw - mean) / std; so raw stores need no model."""
    channels = engine.model.spec.channels
    mean = engine.model.dewhiten(torch.zeros(1, channels, 1, 1)).flatten()
    std = engine.model.dewhiten(torch.ones(1, channels, 1, 1)).flatten() - mean
    return {"mean": mean.tolist(), "std": std.tolist()}


def store_of(job: EncodeJob) -> AnyPath:
    """Where the latents go, given or not."""
    return path_of(job.output or default_store(job.sources, job.model))


def default_store(sources: tuple[str, ...], model: str) -> str:
    """<name>.<model>.latents, named after the first source."""
    if sources[0] in (STDIN, STDIN_LIST):
        return f"stdin.{Path(model).name}.latents"
    if is_remote(sources[0]):
        name = PurePosixPath(sources[0].rstrip("/")).name.partition(".")[0]
        return f"{name}.{Path(model).name}.latents"
    source = Path(sources[0].removeprefix("@")).resolve()
    name = source.stem if source.is_file() else source.name.split("*")[0].rstrip(".")
    return f"{name or 'images'}.{Path(model).name}.latents"
