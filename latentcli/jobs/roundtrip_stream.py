"""Pictures or clips in; how close each contender brings them back, gathered, out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from latentcli.core.errors import LatentCliError, SampleError
from latentcli.core.types import InputRow, Picture
from latentcli.images.codec import encode_image
from latentcli.jobs.batching import batches
from latentcli.jobs.clips import (
    ClipFrame,
    ClipRecipe,
    all_counted,
    count_frames,
    expected_frames,
    frame_key,
    open_frames,
    pixels_of,
)
from latentcli.jobs.config import RoundtripJob
from latentcli.jobs.encode_plan import batch_elements
from latentcli.jobs.encode_stream import timed
from latentcli.jobs.encoding import encode_batch
from latentcli.jobs.engine import DEFAULT_BATCH, Engine, decode_batch
from latentcli.jobs.intake import Intake, Task
from latentcli.jobs.loader import open_chunks
from latentcli.jobs.meter import Meter
from latentcli.jobs.signals import StopRequest
from latentcli.metrics.psnr import psnr
from latentcli.metrics.ssim import ssim
from latentcli.shards.inputs import InputList
from latentcli.shards.write import atomic_write

FIGURES: dict[str, tuple[int, Callable[[Tensor, Tensor], Tensor]]] = {
    "psnr": (1, psnr),
    "ssim": (7, ssim),
    "ssim_gaussian": (11, partial(ssim, window="gaussian")),
}
"""What is measured of each picture, and the least side that it can be measured of."""


@dataclass(slots=True)
class Contender:
    """One model of the comparison, or a pair, and its figures so far."""

    encoder: Engine
    decoder: Engine
    figures: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in FIGURES})

    @property
    def name(self) -> str:
        """Short enough for a table and a folder."""
        names = [name_of(self.encoder), name_of(self.decoder)]
        return names[0] if self.encoder is self.decoder else "-".join(names)


@dataclass(frozen=True, slots=True)
class Roundtrip:
    """What the functions below work with."""

    job: RoundtripJob
    contenders: Sequence[Contender]
    meter: Meter
    stop: StopRequest
    failures: list[dict[str, str]] = field(default_factory=list)

    @property
    def batch_size(self) -> int:
        """Pictures that are encoded at once."""
        device = self.contenders[0].encoder.device
        return self.job.batch_size or DEFAULT_BATCH[device.type]

    def fail(self, key: str, source: str, stage: str | None, error: str | None) -> None:
        """Notes an input that failed; with --on-error stop the job ends here."""
        self.failures.append({"key": key, "error": f"{stage}: {error}"})
        if self.job.on_error == "stop":
            raise LatentCliError(f"{source} failed at {stage}: {error} (--on-error stop).")
        # Of clips, the frames are counted.
        self.meter.advance(1 if self.meter.noun == "images" else 0, 1)


Measured = list[dict[str, list[float]]]
"""Figures of a batch, of each contender in turn."""


def name_of(engine: Engine) -> str:
    """The preset's name, or the last part of a path or id."""
    return engine.info.preset_name or Path(engine.info.name).name


def compare_images(
    run: Roundtrip, intake: Intake, tasks: Iterable[Task], workers: int, time_limit: float
) -> None:
    """The whole stream of pictures; batches of equal size."""

    def pictures() -> Iterator[Picture]:
        for chunk in timed(chunks, run.meter):
            for row, pixels in chunk.pictures():
                if pixels is not None:
                    yield Picture(row, pixels)
                else:
                    run.fail(row.key, row.source, row.stage, row.error)

    size = run.batch_size
    with open_chunks(
        intake, tasks, workers, time_limit=time_limit, waiting=run.stop.check
    ) as chunks:
        for batch in batches(
            pictures(), lambda picture: picture.pixels, size, batch_elements(size)
        ):
            run.stop.check()
            keys = [picture.row.key for picture in batch]
            pixels = torch.stack([picture.pixels for picture in batch])
            keep(run, [compare(run, pixels, keys, frames=False)])
            run.meter.advance(len(batch))


def compare_clips(run: Roundtrip, inputs: InputList, recipe: ClipRecipe) -> int:
    """The whole stream of clips, frame-wise figures; gives the number of clips that were sound."""
    sound = 0
    for number, row in enumerate(inputs):
        try:
            with open_frames(row.source, recipe, run.meter, run.stop.check) as clip:
                expected = expected_frames(clip.info, recipe)
                count_frames(run.meter, expected, number, len(inputs))
                measured = list(compare_frames(run, row, clip.frames))
            if not measured:
                raise SampleError("decode_image", "the clip has no frame")
        except SampleError as error:
            run.fail(row.key, row.source, error.stage, error.reason)
            continue
        keep(run, measured)
        sound += 1
    all_counted(run.meter)
    return sound


def compare_frames(
    run: Roundtrip, row: InputRow, frames: Iterable[ClipFrame]
) -> Iterator[Measured]:
    """Figures of one clip, chunk by chunk."""
    chunks = [chunk_of(run, contender) for contender in run.contenders]
    temporal = [chunk for chunk in chunks if chunk is not None]
    size, first = math.lcm(*temporal) if temporal else run.batch_size, 0
    most = None if temporal else batch_elements(size)
    for batch in batches(frames, pixels_of, size, most):
        run.stop.check()
        run.meter.begin()
        keys = [frame_key(row.key, first + i) for i in range(len(batch))]
        pixels = torch.stack([frame.pixels for frame in batch])
        yield compare(run, pixels, keys, frames=True)
        first += len(batch)
        run.meter.advance(len(batch))


def chunk_of(run: Roundtrip, contender: Contender) -> int | None:
    """Frames that a contender's decoder sees at once; None where it sees one by one."""
    model = contender.decoder.model
    return (run.job.num_frames or model.frames_per_chunk) if model.is_video else None


def compare(run: Roundtrip, pixels: Tensor, keys: Sequence[str], *, frames: bool) -> Measured:
    """encode, round to bfloat16 as a store would, decode, measure: for every contender.

    What one model encodes is encoded once, however many decode it.
    """
    latents: dict[int, Tensor] = {}
    measured: Measured = []
    for contender in run.contenders:
        encoder = contender.encoder
        if id(encoder) not in latents:
            with run.meter.stage("encode", len(keys)):
                state = encoder.model.spec.state
                latent = encode_batch(encoder, pixels, keys, state)["latent"]
            latents[id(encoder)] = latent.bfloat16().float()
        with run.meter.stage("decode", len(keys)):
            step = (chunk_of(run, contender) if frames else None) or len(keys)
            decoded = decode(run, contender, latents[id(encoder)], keys, step, frames=frames)
        with run.meter.stage("metrics", len(keys)):
            side = min(pixels.shape[2:])
            able = {name: score for name, (least, score) in FIGURES.items() if side >= least}
            measured.append({name: score(pixels, decoded).tolist() for name, score in able.items()})
        if run.job.save is not None:
            save(run, Path(run.job.save) / contender.name, keys, decoded)
    return measured


def decode(
    run: Roundtrip,
    contender: Contender,
    latents: Tensor,
    keys: Sequence[str],
    step: int,
    *,
    frames: bool,
) -> Tensor:
    """Pictures of latents, `step` of them at once."""
    engine, settings = contender.decoder, run.job
    parts = [
        decode_batch(engine, latents[i : i + step], keys[i : i + step], settings, frames=frames)
        for i in range(0, len(keys), step)
    ]
    return torch.cat(parts)


def keep(run: Roundtrip, measured: Iterable[Measured]) -> None:
    """Adds figures to the contenders'."""
    for batch in measured:
        for contender, figures in zip(run.contenders, batch, strict=True):
            for name, values in figures.items():
                contender.figures[name] += values


def save(run: Roundtrip, folder: Path, keys: Sequence[str], decoded: Tensor) -> None:
    """Reconstructions as PNG under <save>/<model>/<key>.png."""
    with run.meter.stage("write", len(keys)):
        for key, picture in zip(keys, decoded, strict=True):
            path = folder / f"{key}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(path, [encode_image(picture, "png")])
