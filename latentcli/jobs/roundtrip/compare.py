"""Runs a batch of pictures through every model, and measures how close each comes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from latentcli.core.errors import SampleError
from latentcli.jobs.config import RoundtripJob
from latentcli.jobs.inference.accelerator import Accelerator, DeviceTimer
from latentcli.jobs.inference.encode_batch import encode_on_device
from latentcli.jobs.inference.engine import Engine, decode_on_device
from latentcli.jobs.inference.noise import Noise, begin_noise
from latentcli.jobs.inference.split_on_oom import SplitOnOom, too_large
from latentcli.jobs.roundtrip.cached import CachedLatents
from latentcli.jobs.roundtrip.models import ComparedModel
from latentcli.jobs.runtime.meter import Meter, ignore
from latentcli.metrics.measures import Measure
from latentcli.metrics.similarity import latent_cosine
from latentcli.models.tiled.room import Room

SIMILARITIES = ("latent_cosine", "latent_cosine_per_position")
"""How alike two models' latents of a picture are, as `latent_cosine` gives it."""


@dataclass(frozen=True, slots=True)
class Result:
    """What one model made of a batch of N pictures; all tensors are on its device."""

    latents: Tensor
    """[N, C, h, w], as a store would hold them."""
    decoded: Tensor
    """uint8 [N, 3, H, W]."""
    figures: Mapping[str, Tensor]
    """By measure, float64 [N]."""
    alike: Mapping[str, Tensor]
    """By name of SIMILARITIES, float64 [N]."""


@dataclass(slots=True)
class Comparison:
    """The models of a comparison, and what is measured of them."""

    job: RoundtripJob
    compared_models: Sequence[ComparedModel]
    measures: Sequence[Measure]
    meter: Meter
    cached: CachedLatents | None = None
    """Where the latents come from, if they are not encoded."""
    note: Callable[[str], None] = ignore
    """Called where a batch does not fit into memory."""
    splits: dict[tuple[str, int], SplitOnOom] = field(default_factory=dict)
    """By op and engine."""
    _running: list[tuple[str, int, DeviceTimer]] = field(default_factory=list)

    @property
    def accelerator(self) -> Accelerator:
        """Where all models are."""
        return self.compared_models[0].encoder.accelerator

    def split_on_oom(self, op: str, engine: Engine) -> SplitOnOom:
        """What is known of how much an engine takes at once."""
        return self.splits.setdefault((op, id(engine)), SplitOnOom(self.note, engine.rooms.get(op)))

    def least_room(self, height: int, width: int) -> Room | None:
        """The room of the engine that has the least for pictures of a size; None without limit."""
        rooms = [split.room for split in self.splits.values() if split.room is not None]

        def order(room: Room) -> tuple[bool, int]:
            fits = room.fits(1, height, width)
            return fits or room.obstacle is None, room.pictures(height, width)

        return min(rooms, key=order, default=None)

    @contextmanager
    def stage(self, name: str, items: int) -> Iterator[None]:
        """Times a block on the device, which may work on after the block is left."""
        timer = DeviceTimer(self.accelerator)
        with timer:
            yield
        self._running.append((name, items, timer))

    def forget(self) -> None:
        """Drops the times of stages whose batch comes again."""
        self._running.clear()

    def settle(self) -> None:
        """Hands the stages' times to the meter, once their results have been copied to the host."""
        for name, items, timer in self._running:
            self.meter.add(name, timer.seconds(), items)
        self._running.clear()


def compare(
    comparison: Comparison,
    images: Tensor,
    keys: Sequence[str],
    noise: Noise | None,
    *,
    frames: bool,
) -> list[Result]:
    """encode, round to bfloat16 as a store would, decode, measure: for every model.

    Where the latents are cached, nothing is encoded or rounded.
    `images` are uint8 [N, 3, H, W] on the device; with `frames`, consecutive ones of a clip. What
    one model encodes is encoded once, however many decode it, and `noise` serves them all. Nothing
    leaves the device. torch.OutOfMemoryError where it cannot hold one picture's work, SampleError
    where it cannot hold the frames that a temporal decoder sees at once.
    """
    latents: dict[int, Tensor] = {}
    results: list[Result] = []
    started: Tensor | None = None
    for compared in comparison.compared_models:
        encoder = id(compared.encoder)
        if encoder not in latents and comparison.cached is not None:
            latents[encoder] = comparison.cached.of(keys, compared.encoder)
        elif encoder not in latents:
            with comparison.stage("encode", len(keys)):
                latents[encoder] = encode(comparison, compared, images, keys)
        if noise is not None and started is None:
            started = comparison.accelerator.to_device(noise.ready())
        with comparison.stage("decode", len(keys)):
            decoded = decode(comparison, compared, latents[encoder], keys, started, frames=frames)
        with comparison.stage("metrics", len(keys)):
            figures = measure(comparison, images, decoded)
            alike = alikeness(results[0].latents if results else None, latents[encoder])
        results.append(Result(latents[encoder], decoded, figures, alike))
    return results


def noise_ahead(comparison: Comparison, keys: Sequence[str], shape: Sequence[int]) -> Noise | None:
    """The noise that diffusion decoders start from to pictures of a shape [3, H, W], the same for
    all: threads begin to draw it. None where there is no such decoder.
    """
    if not any(compared.decoder.model.is_diffusion for compared in comparison.compared_models):
        return None
    return begin_noise(comparison.accelerator, comparison.job.seed, keys, tuple(shape))


def encode(
    comparison: Comparison, compared: ComparedModel, images: Tensor, keys: Sequence[str]
) -> Tensor:
    """Latents [N, C, h, w] with the values that a store would give back, float32."""
    engine = compared.encoder
    some = partial(encode_on_device, engine, state=engine.model.spec.state)
    latents = comparison.split_on_oom("encode", engine).encode(some, images, keys)["latent"]
    return latents.bfloat16().float()


def decode(
    comparison: Comparison,
    compared: ComparedModel,
    latents: Tensor,
    keys: Sequence[str],
    noise: Tensor | None,
    *,
    frames: bool,
) -> Tensor:
    """Pictures of latents, uint8 [N, 3, H, W]; a temporal decoder gets its chunks whole."""
    engine, job = compared.decoder, comparison.job

    def some(part: slice) -> dict[str, Tensor]:
        started = noise[part] if noise is not None and engine.model.is_diffusion else None
        pictures = decode_on_device(
            engine, latents[part], keys[part], job, frames=frames, noise=started
        )
        return {"pictures": pictures}

    step = chunk_of(job, compared) if frames else None
    size = step or len(keys)
    shape = (3, *(side * engine.model.spec.downscale for side in latents.shape[2:]))
    fitting = comparison.split_on_oom("decode", engine)

    def chunk(start: int) -> Tensor:
        def of_chunk(part: slice) -> dict[str, Tensor]:
            return some(slice(start + part.start, start + part.stop))

        count = min(size, len(keys) - start)
        return fitting.fit(of_chunk, shape, count, whole=step is not None)["pictures"]

    if step is None:
        return chunk(0)
    try:
        return torch.cat([chunk(start) for start in range(0, len(keys), size)])
    except torch.OutOfMemoryError as error:
        reason = too_large(error, "frame", shape[2], shape[1], min(size, len(keys)), fitting.room)
        raise SampleError("decode", reason) from error


def chunk_of(job: RoundtripJob, compared: ComparedModel) -> int | None:
    """Frames that a model's decoder sees at once; None where it sees one by one."""
    model = compared.decoder.model
    return (job.num_frames or model.frames_per_chunk) if model.is_video else None


def chunk_size(comparison: Comparison) -> int | None:
    """Frames of a clip at once that suit every temporal decoder; None without one."""
    chunks = (chunk_of(comparison.job, compared) for compared in comparison.compared_models)
    temporal = [chunk for chunk in chunks if chunk is not None]
    return math.lcm(*temporal) if temporal else None


def measure(comparison: Comparison, images: Tensor, decoded: Tensor) -> dict[str, Tensor]:
    """Figures of every picture of a batch; a measure that they are too small for is left out."""
    side = min(images.shape[2:])
    able = [each for each in comparison.measures if side >= each.least_side]
    return {each.name: each.score(images, decoded) for each in able}


def alikeness(first: Tensor | None, latents: Tensor) -> dict[str, Tensor]:
    """Similarity to the first model's latents, where they are others of the same shape."""
    if first is None or first is latents or first.shape != latents.shape:
        return {}
    return dict(zip(SIMILARITIES, latent_cosine(first, latents), strict=True))


def finite_ones(results: Sequence[Result]) -> list[bool]:
    """For each picture, whether all its latents are numbers."""
    unique = {id(result.latents): result.latents for result in results}.values()
    each = [torch.isfinite(latents).flatten(1).all(dim=1) for latents in unique]
    sound: list[bool] = torch.stack(each).all(dim=0).tolist()
    return sound


def chosen(result: Result, indices: Sequence[int]) -> Result:
    """A result of some of its pictures."""
    at = torch.tensor(indices, dtype=torch.int64, device=result.decoded.device)
    return Result(
        result.latents[at],
        result.decoded[at],
        {name: values[at] for name, values in result.figures.items()},
        {name: values[at] for name, values in result.alike.items()},
    )
