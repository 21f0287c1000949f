"""Prepares networks for timing: eager or compiled, with real or random weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from latentcli.core.errors import LatentCliError, UsageError, WeightsError
from latentcli.jobs.bench.cases import Case
from latentcli.jobs.bench.config import BenchJob
from latentcli.jobs.config import with_weights
from latentcli.jobs.inference.compiling import RECOMPILES, code_of, failed, reason
from latentcli.jobs.inference.engine import Engine, inference_config, load_engine
from latentcli.jobs.inference.out_of_memory import is_out_of_memory, may_be_out_of_memory
from latentcli.jobs.settings.model import DecodeSettings
from latentcli.models.fast.products import traceable

Given = TypeVar("Given")


@dataclass(frozen=True, slots=True)
class TimedModel:
    """A model as it is timed."""

    name: str
    engine: Engine
    encode: Callable[..., Tensor]
    """As Autoencoder.encode."""
    decode: Callable[..., Tensor]
    """As Autoencoder.decode."""
    compiled: bool


@dataclass(frozen=True, slots=True)
class Work:
    """An op with its inputs, which are on the device already."""

    call: Callable[[], Tensor]
    inputs: tuple[Tensor, ...]


def bench_engine(job: BenchJob, text: str, dtype: str | None = None, plain: bool = False) -> Engine:
    """The model NAME or NAME=PATH as `bench` runs it; `plain` is as `load_engine` has it.

    WeightsError names --random-weights where there are no weights.
    """
    name, path = with_weights(text)
    try:
        return load_engine(
            name,
            weights=path or job.weights,
            revision=job.revision,
            device=job.device,
            dtype=dtype or job.dtype,
            random_weights=job.random_weights,
            plain=plain,
            compile=job.compile,
        )
    except WeightsError as error:
        if job.random_weights:
            raise
        raise WeightsError(
            f"{error}\nTo time the networks without their weights, add --random-weights."
        ) from None


def timed_model(name: str, engine: Engine, compiled: bool) -> TimedModel:
    """The model's own encode and decode, or what torch.compile makes of them, shape by shape."""
    model = engine.model
    if not compiled:
        return TimedModel(name, engine, model.encode, model.decode, False)
    traceable(model)
    torch._dynamo.config.recompile_limit = RECOMPILES
    return TimedModel(name, engine, code_of(model.encode), code_of(model.decode), True)


def why_not(engine: Engine, case: Case) -> str | None:
    """Why a model has no such op, or None; UsageError where its size rule forbids the size."""
    model = engine.model
    if not (model.can_encode if case.op == "encode" else model.can_decode):
        return f"it has no {case.op}r"
    width, height = case.size
    try:
        model.spec.latent_size(height, width)
    except ValueError as error:
        raise UsageError(
            f"--resolution {width}x{height} and {engine.info.name}: {error}."
        ) from None
    return None


def work(model: TimedModel, case: Case, steps: int) -> Work:
    """The op on seeded inputs: uniform noise pictures, or standard normal latents and noise.

    LatentCliError where even the inputs need more memory than there is.
    """
    return attempt(model, case, lambda: _work(model, case, steps))


def _work(model: TimedModel, case: Case, steps: int) -> Work:
    (width, height), spec, device = case.size, model.engine.model.spec, model.engine.device
    generator = torch.Generator().manual_seed(0)
    if case.op == "encode":
        images = torch.rand(case.batch, 3, height, width, generator=generator) * 2 - 1
        images = images.to(device)
        return Work(lambda: model.encode(images), (images,))
    h, w = spec.latent_size(height, width)
    latents = torch.randn(case.batch, spec.channels, h, w, generator=generator).to(device)
    config = inference_config(DecodeSettings(steps=steps))
    if not model.engine.model.is_diffusion:
        return Work(lambda: model.decode(latents, height, width, config), (latents,))
    noise = torch.randn(case.batch, 3, height, width, generator=generator).to(device)
    return Work(lambda: model.decode(latents, height, width, config, noise=noise), (latents, noise))


class ShortOfMemory(LatentCliError):
    """A case that a model cannot run here; others may."""


def attempt(model: TimedModel, case: Case, call: Callable[[], Given]) -> Given:
    """What an untimed call gives; ShortOfMemory, or LatentCliError for a failed compile."""
    try:
        return call()
    except LatentCliError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise ShortOfMemory(
                f"{model.name} ran out of memory in {case}; a smaller --batch or --resolution"
                " needs less."
            ) from error
        if case.batch > 1 and may_be_out_of_memory(error):
            raise ShortOfMemory(
                f"{model.name} found no algorithm for {case}, possibly because memory ran out:"
                f" {reason(error)}. Try a smaller --batch."
            ) from error
        if not model.compiled:
            raise
        raise failed(model.name, str(case), error, "time") from error
