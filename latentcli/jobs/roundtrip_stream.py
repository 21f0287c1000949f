"""Pictures or clips in; how close each contender brings them back, tallied, out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

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
from latentcli.jobs.contenders import Contender
from latentcli.jobs.encode_plan import batch_elements
from latentcli.jobs.encode_stream import timed
from latentcli.jobs.encoding import encode_on_device, to_device
from latentcli.jobs.engine import DEFAULT_BATCH, decode_on_device
from latentcli.jobs.intake import Intake, Task
from latentcli.jobs.loader import open_chunks
from latentcli.jobs.meter import Meter
from latentcli.jobs.roundtrip_report import ReportWriter
from latentcli.jobs.roundtrip_rows import RowSpool
from latentcli.jobs.signals import StopRequest
from latentcli.jobs.tally import Tally
from latentcli.metrics.measures import Measure, SetMeasure
from latentcli.metrics.similarity import latent_cosine
from latentcli.metrics.temporal import ClipMeasure
from latentcli.shards.inputs import InputList
from latentcli.shards.write import atomic_write

SIMILARITIES = ("latent_cosine", "latent_cosine_per_position")
"""How alike two models' latents of a picture are, as `latent_cosine` gives it."""


@dataclass(slots=True)
class Roundtrip:
    """What the functions below work with, and what they gather."""

    job: RoundtripJob
    contenders: Sequence[Contender]
    measures: Sequence[Measure]
    sets: Sequence[SetMeasure]
    """One for each kind, over all contenders."""
    rows: RowSpool
    report: ReportWriter | None
    meter: Meter
    stop: StopRequest
    tallies: list[Tally] = field(init=False)
    clips: list[dict[str, Any]] = field(default_factory=list)
    """Key and figures of each sound clip."""
    failures: list[dict[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        names = [measure.name for measure in self.measures]
        self.tallies = [Tally.of(names) for _ in self.contenders]

    @property
    def device(self) -> torch.device:
        """Where all models are."""
        return self.contenders[0].encoder.device

    @property
    def batch_size(self) -> int:
        """Pictures that are encoded at once."""
        return self.job.batch_size or DEFAULT_BATCH[self.device.type]

    def fail(self, key: str, source: str, stage: str | None, error: str | None) -> None:
        """Notes an input that failed; with --on-error stop the job ends here."""
        self.failures.append({"key": key, "error": f"{stage}: {error}"})
        if self.job.on_error == "stop":
            raise LatentCliError(f"{source} failed at {stage}: {error} (--on-error stop).")
        # Of clips, the frames are counted.
        self.meter.advance(1 if self.meter.noun == "images" else 0, 1)


class Name(NamedTuple):
    """What a picture is called."""

    index: int
    """Its place among the sound inputs, of which one may overtake another of another size."""
    key: str
    source: str


@dataclass(frozen=True, slots=True)
class Result:
    """What one contender made of a batch; the tensors are on its device."""

    latents: Tensor
    """[N, C, h, w], as a store would hold them."""
    decoded: Tensor
    """uint8 [N, 3, H, W]."""
    figures: Mapping[str, list[float]]
    alike: Mapping[str, list[float]]


def compare_images(
    run: Roundtrip, intake: Intake, tasks: Iterable[Task], workers: int, time_limit: float
) -> None:
    """The whole stream of pictures; batches of equal size."""

    def pictures() -> Iterator[tuple[int, Picture]]:
        indices = count()
        for chunk in timed(chunks, run.meter):
            for row, pixels in chunk.pictures():
                if pixels is not None:
                    yield next(indices), Picture(row, pixels)
                else:
                    run.fail(row.key, row.source, row.stage, row.error)

    size = run.batch_size
    with open_chunks(
        intake, tasks, workers, time_limit=time_limit, waiting=run.stop.check
    ) as chunks:
        for batch in batches(pictures(), lambda each: each[1].pixels, size, batch_elements(size)):
            run.stop.check()
            named = [Name(i, picture.row.key, picture.row.source) for i, picture in batch]
            compare(run, torch.stack([picture.pixels for _, picture in batch]), named, frames=False)
            run.meter.advance(len(batch))


def compare_clips(run: Roundtrip, inputs: InputList, recipe: ClipRecipe) -> None:
    """The whole stream of clips, frame by frame; a clip that fails contributes nothing."""
    for number, row in enumerate(inputs):
        try:
            with (
                whole_or_nothing(run),
                open_frames(row.source, recipe, run.meter, run.stop.check) as clip,
            ):
                expected = expected_frames(clip.info, recipe)
                count_frames(run.meter, expected, number, len(inputs))
                figures = compare_frames(run, row, clip.frames)
                if not figures:
                    raise SampleError("decode_image", "the clip has no frame")
        except SampleError as error:
            run.fail(row.key, row.source, error.stage, error.reason)
            continue
        run.clips.append({"key": row.key, "figures": figures})
    all_counted(run.meter)


@contextmanager
def whole_or_nothing(run: Roundtrip) -> Iterator[None]:
    """Takes back what the block gave where a SampleError leaves it."""
    tallies, rows = [tally.copy() for tally in run.tallies], run.rows.mark()
    report = run.report.mark() if run.report else None
    try:
        yield
    except SampleError:
        run.tallies = tallies
        run.rows.back_to(rows)
        if run.report and report:
            run.report.back_to(report)
        raise


def compare_frames(
    run: Roundtrip, row: InputRow, frames: Iterable[ClipFrame]
) -> list[dict[str, float | None]]:
    """One clip, chunk by chunk; gives its figures for each contender, or none without a frame."""
    chunks = [chunk_of(run, contender) for contender in run.contenders]
    temporal = [chunk for chunk in chunks if chunk is not None]
    size, first = math.lcm(*temporal) if temporal else run.batch_size, 0
    most = None if temporal else batch_elements(size)
    clips = [ClipMeasure() for _ in run.contenders]
    before = [{name: len(v) for name, v in tally.figures.items()} for tally in run.tallies]
    for batch in batches(frames, pixels_of, size, most):
        run.stop.check()
        run.meter.begin()
        named = [
            Name(run.rows.count + i, frame_key(row.key, first + i), row.source)
            for i in range(len(batch))
        ]
        pixels = torch.stack([frame.pixels for frame in batch])
        compare(run, pixels, named, frames=True, clips=clips)
        first += len(batch)
        run.meter.advance(len(batch))
    if not first:
        return []
    means = map(frame_means, run.tallies, before)
    return [mean | clip.figures() for mean, clip in zip(means, clips, strict=True)]


def frame_means(tally: Tally, before: Mapping[str, int]) -> dict[str, float | None]:
    """Mean over the frames that came later, of each measure that they have."""
    later = {name: values[before[name] :] for name, values in tally.figures.items()}
    return {name: sum(values) / len(values) for name, values in later.items() if len(values)}


def chunk_of(run: Roundtrip, contender: Contender) -> int | None:
    """Frames that a contender's decoder sees at once; None where it sees one by one."""
    model = contender.decoder.model
    return (run.job.num_frames or model.frames_per_chunk) if model.is_video else None


def compare(
    run: Roundtrip,
    pixels: Tensor,
    named: Sequence[Name],
    *,
    frames: bool,
    clips: Sequence[ClipMeasure] = (),
) -> None:
    """encode, round to bfloat16 as a store would, decode, measure: for every contender.

    `named` has a name for each picture. What one model encodes is encoded once, however many
    decode it. Nothing but figures leaves the device, unless pictures are kept.
    """
    keys = [name.key for name in named]
    images = to_device(pixels, run.device)
    latents: dict[int, Tensor] = {}
    results: list[Result] = []
    for contender in run.contenders:
        encoder = contender.encoder
        if id(encoder) not in latents:
            with run.meter.stage("encode", len(keys)):
                state = encoder.model.spec.state
                latent = encode_on_device(encoder, images, keys, state)["latent"]
                latents[id(encoder)] = latent.bfloat16().float()
        with run.meter.stage("decode", len(keys)):
            step = (chunk_of(run, contender) if frames else None) or len(keys)
            decoded = decode(run, contender, latents[id(encoder)], keys, step, frames=frames)
        with run.meter.stage("metrics", len(keys)):
            figures = measure(run, images, decoded)
            alike = alikeness(results[0].latents if results else None, latents[id(encoder)])
        results.append(Result(latents[id(encoder)], decoded, figures, alike))
    with run.meter.stage("metrics", len(keys)):
        for of_set in run.sets:
            of_set.add_real(images)
            for i, result in enumerate(results):
                of_set.add_fake(i, result.decoded)
        for clip, result in zip(clips, results, strict=False):
            clip.add(images, result.decoded)
    record(run, pixels, named, results)


def decode(
    run: Roundtrip,
    contender: Contender,
    latents: Tensor,
    keys: Sequence[str],
    step: int,
    *,
    frames: bool,
) -> Tensor:
    """Pictures of latents, `step` of them at once, on the device."""
    engine, settings = contender.decoder, run.job
    parts = [
        decode_on_device(engine, latents[i : i + step], keys[i : i + step], settings, frames=frames)
        for i in range(0, len(keys), step)
    ]
    return torch.cat(parts)


def measure(run: Roundtrip, images: Tensor, decoded: Tensor) -> dict[str, list[float]]:
    """Figures of every picture of a batch; a measure that they are too small for is left out."""
    side = min(images.shape[2:])
    able = [each for each in run.measures if side >= each.least_side]
    return {each.name: each.score(images, decoded).tolist() for each in able}


def alikeness(first: Tensor | None, latents: Tensor) -> dict[str, list[float]]:
    """Similarity to the first contender's latents, where they are others of the same shape."""
    if first is None or first is latents or first.shape != latents.shape:
        return {}
    found = latent_cosine(first, latents)
    both = (found.whole, found.positions)
    return {name: each.tolist() for name, each in zip(SIMILARITIES, both, strict=True)}


def record(
    run: Roundtrip, pixels: Tensor, named: Sequence[Name], results: Sequence[Result]
) -> None:
    """Hands a batch's figures, and what is kept of its pictures, to where they belong."""
    seen: set[int] = set()
    for tally, result in zip(run.tallies, results, strict=True):
        # The latents of a shared encoder belong to the first who uses it.
        own = None if id(result.latents) in seen else result.latents
        seen.add(id(result.latents))
        tally.add(result.figures, own, result.alike)
    with run.meter.stage("write", len(named)):
        keep(run, pixels, named, results)
    height, width = pixels.shape[2:]
    for i, name in enumerate(named):
        each = [{n: v[i] for n, v in {**r.figures, **r.alike}.items()} for r in results]
        run.rows.add(name._asdict() | {"width": width, "height": height, "figures": each})


def keep(run: Roundtrip, pixels: Tensor, named: Sequence[Name], results: Sequence[Result]) -> None:
    """Writes reconstructions as PNG under <save>/<model>/<key>.png, and the report's pictures."""
    if run.job.save is None and run.report is None:
        return
    decoded = [result.decoded.cpu() for result in results]
    latents = list({id(r.latents): r.latents for r in results}.values())
    for i, (index, key, _) in enumerate(named):
        if run.report is not None:
            of_all = [pictures[i] for pictures in decoded]
            run.report.add(index, pixels[i], of_all, [latent[i] for latent in latents])
        if run.job.save is not None:
            for contender, pictures in zip(run.contenders, decoded, strict=True):
                path = Path(run.job.save) / contender.name / f"{key}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                atomic_write(path, [encode_image(pictures[i], "png")])
