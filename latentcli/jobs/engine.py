"""A model on a device: uint8 picture batches in, latents on the CPU out, and back."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any, Self

import torch
from torch import Tensor

from latentcli.core.errors import UsageError
from latentcli.images.codec import to_float, to_uint8
from latentcli.jobs.config import DecodeSettings
from latentcli.jobs.memory import reuse_heap
from latentcli.models.base import Autoencoder, ModelInfo
from latentcli.models.registry import load_model
from latentcli.models.vp_diffusion import InferenceConfig

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
DEFAULT_BATCH = {"cpu": 8, "cuda": 32}
PIECE_PIXELS = 2**16
"""Pixels that a CPU core encodes at once, or one picture: enough to keep it busy."""


@dataclass(frozen=True, slots=True)
class Engine:
    """A loaded model and where it runs."""

    model: Autoencoder
    info: ModelInfo
    device: torch.device
    dtype: str
    """bf16 or fp32."""

    @property
    def device_name(self) -> str:
        """The GPU's name, or cpu."""
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        return self.device.type


def pick_device(choice: str) -> torch.device:
    """auto, cpu, cuda or cuda:N to a device that is there; UsageError otherwise."""
    if choice == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(choice)
    except RuntimeError:
        device = None
    if device is None or device.type not in DEFAULT_BATCH:
        raise UsageError(f"--device is {choice!r}; allowed are auto, cpu, cuda and cuda:N.")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            f"--device is {choice!r}, but torch {torch.__version__} sees no CUDA device;"
            " use --device cpu, or install a CUDA build of torch."
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"--device is {choice!r}, but there are {torch.cuda.device_count()} CUDA devices."
        )
    return device


def pick_dtype(choice: str, device: torch.device) -> str:
    """bf16 or fp32; auto is bf16 on a GPU and fp32 on a CPU."""
    if choice != "auto":
        return choice
    return "bf16" if device.type == "cuda" else "fp32"


def load_engine(
    model: str,
    *,
    weights: str | None = None,
    revision: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    random_weights: bool = False,
) -> Engine:
    """The model with its weights on the chosen device, ready to run."""
    where = pick_device(device)
    number = pick_dtype(dtype, where)
    reuse_heap()
    if where.type == "cuda":
        prepare_cuda(where)
    net = load_model(
        model,
        weights=weights,
        revision=revision,
        device=where,
        dtype=DTYPES[number],
        random_weights=random_weights,
    )
    return Engine(net, net.info, where, number)


def prepare_cuda(device: torch.device) -> None:
    """float32 means float32 on the GPU too, and the same batch gives the same bits every time."""
    if device.index is not None:  # torch refuses a device without one
        torch.cuda.set_device(device)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def sample_seed(seed: int, key: str) -> int:
    """A 32-bit seed of one sample, so that its noise depends on nothing but seed and key.

    torch's CPU generator uses no more than 32 bits of a seed.
    """
    digest = hashlib.sha256(f"{seed}:{key}".encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:4], "little")


def sample_noise(seed: int, keys: Sequence[str], shape: tuple[int, ...]) -> Tensor:
    """Standard normal float32 [len(keys), *shape] on the CPU, each item from its own stream."""
    return torch.stack(
        [
            torch.randn(shape, generator=torch.Generator().manual_seed(sample_seed(seed, key)))
            for key in keys
        ]
    )


def encode_batch(
    engine: Engine,
    pixels: Tensor,
    keys: Sequence[str],
    state: str,
    sample: int | None = None,
    *,
    class_token: bool = False,
    flip: bool = False,
) -> dict[str, Tensor]:
    """`encode_on_device`, with the parts on the CPU and ready."""
    parts = encode_on_device(
        engine, pixels, keys, state, sample, class_token=class_token, flip=flip
    )
    return {name: part.cpu() for name, part in parts.items()}


def encode_on_device(
    engine: Engine,
    pixels: Tensor,
    keys: Sequence[str],
    state: str,
    sample: int | None = None,
    *,
    class_token: bool = False,
    flip: bool = False,
) -> dict[str, Tensor]:
    """uint8 pictures [N, 3, H, W] to named float32 parts, each [N, ...], on the engine's device.

    `state` is the model's own (whitened or scaled), raw or moments; the parts are latent, or the
    posterior's moments, and class_token where asked for; with `flip` also `<part>_flip`, those of
    the mirrored pictures. `sample` seeds a posterior sample instead of the mode. A GPU may still be
    at work when this returns.
    """
    images = to_device(pixels, engine.device)
    words = (state, sample, class_token, flip)
    if engine.device.type == "cuda":
        return _encode(engine, images, keys, *words)
    return _encode_on_cores(engine, images, keys, *words)


def _encode_on_cores(
    engine: Engine,
    pixels: Tensor,
    keys: Sequence[str],
    state: str,
    sample: int | None,
    class_token: bool,
    flip: bool,
) -> dict[str, Tensor]:
    """`_encode` in pieces, each on one core.

    A picture goes the same way whatever the number of threads, so its latent has the same bits; and
    the cores wait for each other once a batch rather than once a layer.
    """
    threads = torch.get_num_threads()
    size = max(1, PIECE_PIXELS // (pixels.shape[-1] * pixels.shape[-2]))
    starts = range(0, len(pixels), size)

    def piece(start: int) -> dict[str, Tensor]:
        torch.set_num_threads(1)
        part = slice(start, start + size)
        return _encode(engine, pixels[part], keys[part], state, sample, class_token, flip)

    try:
        each = map(piece, starts) if threads == 1 else crew(threads).map(piece, starts)
        pieces = list(each)
    finally:
        torch.set_num_threads(threads)
    if len(pieces) == 1:
        return pieces[0]
    return {name: torch.cat([part[name] for part in pieces]) for name in pieces[0]}


@cache
def crew(threads: int) -> ThreadPoolExecutor:
    """The threads that encode on a CPU."""
    return ThreadPoolExecutor(threads, thread_name_prefix="encode")


@torch.inference_mode()
def _encode(
    engine: Engine,
    pixels: Tensor,
    keys: Sequence[str],
    state: str,
    sample: int | None,
    class_token: bool,
    flip: bool,
) -> dict[str, Tensor]:
    """The parts of pictures that are on the device, and with `flip` of the mirrored ones."""
    images = to_float(pixels)
    parts = _parts(engine, images, keys, state, sample, class_token)
    if flip:
        names = [f"{key}/flip" for key in keys]
        mirrored = _parts(engine, images.flip(-1), names, state, sample, class_token)
        parts |= {f"{part}_flip": values for part, values in mirrored.items()}
    return parts


def _parts(
    engine: Engine,
    images: Tensor,
    keys: Sequence[str],
    state: str,
    sample: int | None,
    class_token: bool,
) -> dict[str, Tensor]:
    model = engine.model
    if state == model.spec.state and sample is None:
        own = model.encode(images).float()
        parts = {"latent": own}
    else:
        posterior = model.encode_posterior(images)
        noise = None
        if sample is not None:
            shape = tuple(posterior.mean.shape[1:])
            noise = sample_noise(sample, keys, shape).to(posterior.mean.device)
        raw = posterior.mode() if noise is None else posterior.sample(noise)
        own = model.whiten(raw)
        parts = {"latent": raw if state == "raw" else own}
        if state == "moments":
            parts = posterior.moments()
    if class_token:
        parts["class_token"] = model.predict_class(own).float()
    return parts


def to_device(pixels: Tensor, device: torch.device) -> Tensor:
    """A batch on the device; to a GPU it is copied while the host goes on."""
    if device.type != "cuda":
        return pixels.to(device)
    return pixels.pin_memory().to(device, non_blocking=True)


class DeviceTimer:
    """Context manager: how long a device works on what a block gives it.

    A GPU works on while the block is left, so `seconds` may be asked for only after its results
    have been copied to the host.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._marks: list[Any] = []

    def _mark(self) -> None:
        if not self._cuda:
            self._marks.append(time.perf_counter())
            return
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        self._marks.append(event)

    def __enter__(self) -> Self:
        self._mark()
        return self

    def __exit__(self, *_: object) -> None:
        self._mark()

    def seconds(self) -> float:
        """Between the beginning and the end of the block's work."""
        begin, end = self._marks
        if not self._cuda:
            return float(end - begin)
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1000


@torch.inference_mode()
def decode_batch(
    engine: Engine,
    latents: Tensor,
    keys: Sequence[str],
    settings: DecodeSettings,
    *,
    frames: bool = False,
) -> Tensor:
    """The model's own latents [N, C, h, w] to uint8 pictures [N, 3, H, W] on the CPU.

    With `frames` they are consecutive frames of one clip, which a temporal decoder decodes
    together. The noise of each picture comes from the seed and its key alone, so a picture is the
    same in any batch up to the arithmetic's rounding.
    """
    f = engine.model.spec.downscale
    height, width = latents.shape[-2] * f, latents.shape[-1] * f
    run = engine.model.decode_frames if frames else engine.model.decode
    images = run(
        latents.to(engine.device),
        height,
        width,
        inference_config(settings),
        noise=sample_noise(settings.seed, keys, (3, height, width)),
    )
    return to_uint8(images).cpu()


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
