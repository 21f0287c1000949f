"""Loads a model on a device, and decodes batches of latents with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from latentcli.core.errors import UsageError
from latentcli.images.codec import to_uint8
from latentcli.jobs.config import EncodeJob
from latentcli.jobs.inference.accelerator import Accelerator, pick_device, pick_dtype
from latentcli.jobs.inference.compiled_model import CompiledModel, piece
from latentcli.jobs.inference.compiling import check_compiler
from latentcli.jobs.inference.max_memory import below
from latentcli.jobs.inference.noise import sample_noise
from latentcli.jobs.inference.on_cores import on_cores
from latentcli.jobs.runtime.machine import reuse_heap
from latentcli.jobs.runtime.meter import ignore
from latentcli.jobs.settings.model import DecodeSettings
from latentcli.models.base import Autoencoder, ModelInfo
from latentcli.models.fast.form import fast_form
from latentcli.models.registry import load_model
from latentcli.models.tiled.room import Room
from latentcli.models.vp_diffusion import InferenceConfig


@dataclass(frozen=True, slots=True)
class Engine:
    """A loaded model and where it runs."""

    model: Autoencoder
    info: ModelInfo
    accelerator: Accelerator
    dtype: str
    """bf16 or fp32."""
    rooms: Mapping[str, Room] = field(default_factory=dict)
    """Under --max-memory, what encode and decode may take, by these names."""
    compiled: CompiledModel | None = None
    """With --compile on, what runs in the model's place."""

    @property
    def network(self) -> Autoencoder | CompiledModel:
        """What encodes and decodes."""
        return self.compiled or self.model

    @property
    def device(self) -> torch.device:
        """Where it runs, as torch takes it."""
        return self.accelerator.device

    @property
    def device_name(self) -> str:
        """The GPU's name, or cpu."""
        return self.accelerator.describe()


def load_engine(
    model: str,
    *,
    weights: str | None = None,
    revision: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    random_weights: bool = False,
    plain: bool = False,
    max_memory: int | None = None,
    compile: str = "off",
) -> Engine:
    """The model with its weights on the chosen device, ready to run.

    It is in its fast form, or `plain` in the published one, which the other is held against. With
    `max_memory`, in bytes, it computes in parts what would take more. UsageError where `compile` is
    on and cannot be; the code itself is made once the sizes of pictures are known.
    """
    where = pick_device(device)
    number = pick_dtype(dtype, where)
    check_compiler(compile, where, max_memory)
    where.prepare()
    net = load_model(
        model,
        weights=weights,
        revision=revision,
        device=where.device,
        dtype=number,
        random_weights=random_weights,
    )
    info, form = net.info, net if plain else fast_form(net)
    del net  # what the fast form has anew would stay beside it
    reuse_heap()
    rooms: Mapping[str, Room] = {}
    if max_memory is not None:
        form, rooms = below(form, max_memory, where)
    return Engine(form, info, where, number, rooms)


def with_code(
    engine: Engine,
    op: str,
    batches: Mapping[tuple[int, int], int],
    status: Callable[[str], None] = ignore,
) -> Engine:
    """The engine that encodes or decodes (`op`) full batches of some sizes by compiled code.

    `batches` are (W, H) to the pictures of a full batch; the code is made at its first use.
    """
    pieces = {piece(engine.accelerator, op, count, size) for size, count in batches.items()}
    if engine.compiled is not None:
        pieces |= engine.compiled.pieces
    code = CompiledModel(engine.model, engine.accelerator, engine.dtype, frozenset(pieces), status)
    return replace(engine, compiled=code)


def decode_batch(
    engine: Engine,
    latents: Tensor,
    keys: Sequence[str],
    settings: DecodeSettings,
    *,
    frames: bool = False,
) -> Tensor:
    """`decode_on_device`, with the pictures on the CPU and ready."""
    return decode_on_device(engine, latents, keys, settings, frames=frames).cpu()


def decode_on_device(
    engine: Engine,
    latents: Tensor,
    keys: Sequence[str],
    settings: DecodeSettings,
    *,
    frames: bool = False,
    noise: Tensor | None = None,
) -> Tensor:
    """The model's own latents [N, C, h, w] to uint8 pictures [N, 3, H, W] on the engine's device.

    With `frames` they are consecutive frames of one clip, which a temporal decoder decodes
    together. The noise of each picture comes from the seed and its key alone, so a picture is the
    same in any batch up to the arithmetic's rounding; `noise` is what `sample_noise` gives of them,
    where the caller has it already.
    """
    f = engine.model.spec.downscale
    height, width = latents.shape[-2] * f, latents.shape[-1] * f
    if noise is None and engine.model.is_diffusion:
        noise = sample_noise(settings.seed, keys, (3, height, width))
    copied, config = engine.accelerator.to_device, inference_config(settings)
    together = frames and engine.model.is_video
    run = engine.model.decode_frames if together else engine.network.decode

    @torch.inference_mode()
    def decode(part: slice) -> Tensor:
        start = None if noise is None else copied(noise[part])
        return to_uint8(run(copied(latents[part]), height, width, config, noise=start))

    if engine.accelerator.gpu or together:
        return decode(slice(None))
    pieces = on_cores(decode, len(latents), height * width, alone=False)
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces)


def inference_config(settings: DecodeSettings) -> InferenceConfig:
    """The decode options of a job as the models take them; UsageError for what cannot be."""
    try:
        return InferenceConfig(
            num_steps=settings.steps,
            sampler=settings.sampler,
            schedule=settings.schedule,
            pdg=settings.pdg,
            pdg_strength=settings.pdg_strength,
            seed=settings.seed,
        )
    except ValueError as error:
        raise UsageError(f"{error}.") from None


def engine_of(job: EncodeJob) -> Engine:
    """The job's model, loaded."""
    return load_engine(
        job.model,
        weights=job.weights,
        revision=job.revision,
        device=job.device,
        dtype=job.dtype,
        max_memory=job.most_bytes,
        compile=job.compile,
    )
