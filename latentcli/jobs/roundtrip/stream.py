"""Streams pictures or clips through the comparison, and collects their figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latentcli.core.errors import Filtered, SampleError, StoreError
from latentcli.core.types import FILTERED, InputRow, Picture
from latentcli.images.codec import encode_image
from latentcli.jobs.inference.batch_size import batch_elements
from latentcli.jobs.inference.noise import Noise
from latentcli.jobs.inference.out_of_memory import (
    empty_cache,
    is_out_of_memory,
    may_be_out_of_memory,
)
from latentcli.jobs.inference.split_on_oom import too_large
from latentcli.jobs.loader.batches import batches
from latentcli.jobs.loader.clip_frames import (
    ClipFrame,
    ClipRecipe,
    all_counted,
    count_frames,
    expected_frames,
    frame_key,
    open_frames,
    pixels_of,
)
from latentcli.jobs.loader.loader import open_chunks, timed
from latentcli.jobs.loader.lookahead import lookahead
from latentcli.jobs.loader.prepare import Intake, Task
from latentcli.jobs.roundtrip.compare import (
    Comparison,
    Result,
    chosen,
    chunk_size,
    compare,
    finite_ones,
    noise_ahead,
)
from latentcli.jobs.roundtrip.figures import ModelFigures
from latentcli.jobs.roundtrip.report import ReportWriter
from latentcli.jobs.roundtrip.rows import RowSpool
from latentcli.jobs.runtime.failures import Failures
from latentcli.jobs.runtime.places import check_name
from latentcli.jobs.runtime.signals import StopRequest
from latentcli.metrics.measures import SetMeasure
from latentcli.metrics.temporal import ClipMeasure
from latentcli.shards.sources.own_output import make_own_folder
from latentcli.shards.storage.atomic_write import atomic_write, write_error
from latentcli.shards.store.input_list import InputList


@dataclass(slots=True)
class Roundtrip:
    """What the functions below work with, and what they gather."""

    comparison: Comparison
    sets: Sequence[SetMeasure]
    """One for each kind, over all models."""
    rows: RowSpool
    report: ReportWriter | None
    stop: StopRequest
    failures: Failures
    model_figures: list[ModelFigures] = field(init=False)
    clips: list[dict[str, Any]] = field(default_factory=list)
    """Key and figures of each sound clip."""
    problems: list[str] = field(default_factory=list)
    """Files that could not be written: no reason to lose the figures."""
    filtered: Counter[str] = field(default_factory=Counter)
    """Inputs that the job's filters refused, by reason."""

    def __post_init__(self) -> None:
        names = [measure.name for measure in self.comparison.measures]
        self.model_figures = [ModelFigures.of(names) for _ in self.comparison.compared_models]

    @property
    def batch_size(self) -> int:
        """Pictures that are encoded at once."""
        return self.comparison.job.batch_size or self.comparison.accelerator.batch_size

    def leave_out(self, reason: str | None) -> None:
        """Notes an input that a filter of the job refused."""
        meter = self.comparison.meter
        meter.advance(1 if meter.noun == "images" else 0)
        self.filtered[reason or ""] += 1

    def fail(self, key: str, source: str, stage: str | None, error: str | None) -> None:
        """Notes an input that failed; the job ends here where its options say so."""
        meter = self.comparison.meter
        # Of clips, the frames are counted.
        meter.advance(1 if meter.noun == "images" else 0, 1)
        self.failures.add(key, source, f"{stage}: {error}")


@dataclass(frozen=True, slots=True)
class Name:
    """What a picture is called."""

    index: int
    """Its index among the inputs, of which one may overtake another of another size."""
    key: str
    source: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Pictures that are compared together."""

    named: Sequence[Name]
    pixels: Tensor
    """uint8 [N, 3, H, W]."""
    noise: Noise | None
    """What diffusion decoders start from."""

    def alone(self) -> Iterator[Batch]:
        """Each of its pictures as a batch."""
        for i in range(len(self.named)):
            part = slice(i, i + 1)
            noise = None if self.noise is None else self.noise[part]
            yield Batch(self.named[part], self.pixels[part], noise)


def batch_of(run: Roundtrip, named: Sequence[Name], pictures: Sequence[Tensor]) -> Batch:
    """Pictures [3, H, W] as a batch; threads begin to draw their noise."""
    keys = [name.key for name in named]
    noise = noise_ahead(run.comparison, keys, pictures[0].shape)
    return Batch(named, torch.stack(list(pictures)), noise)


def compare_images(
    run: Roundtrip, intake: Intake, tasks: Iterable[Task], workers: int, time_limit: float
) -> None:
    """The whole stream of pictures; batches of equal size."""

    def pictures() -> Iterator[tuple[Name, Picture]]:
        indices = count()
        for chunk in timed(chunks, run.comparison.meter):
            for row, pixels in chunk.pictures():
                run.failures.seen += 1
                if row.status == FILTERED:
                    run.leave_out(row.error)
                elif pixels is None:
                    run.fail(row.key, row.source, row.stage, row.error)
                elif (
                    problem := unsavable(run, row.key) or uncached(run, row.key, pixels)
                ) is not None:
                    run.fail(row.key, row.source, problem.stage, problem.reason)
                else:
                    yield Name(next(indices), row.key, row.source), Picture(row, pixels)

    size = run.batch_size
    with open_chunks(
        intake, tasks, workers, time_limit=time_limit, waiting=run.stop.check
    ) as chunks:
        groups = batches(pictures(), lambda each: each[1].pixels, size, batch_elements(size))
        each = (
            batch_of(run, [name for name, _ in group], [picture.pixels for _, picture in group])
            for group in groups
        )
        for batch in lookahead(each, int(run.comparison.accelerator.gpu)):
            run.stop.check()
            bad = take_pictures(run, batch)
            if run.comparison.cached is not None:
                run.comparison.cached.drop([name.key for name in batch.named])
            for name, problem in bad:
                run.fail(name.key, name.source, problem.stage, problem.reason)
            run.comparison.meter.advance(len(batch.named) - len(bad))


def uncached(run: Roundtrip, key: str, pixels: Tensor) -> SampleError | None:
    """Why the cache of the job has no latent for a picture [3, H, W]; None where it has one."""
    comparison = run.comparison
    if comparison.cached is None:
        return None
    height, width = pixels.shape[1:]
    try:
        comparison.cached.take(key, (height, width), comparison.compared_models[0].encoder)
    except SampleError as error:
        return error
    return None


def take_pictures(run: Roundtrip, batch: Batch) -> list[tuple[Name, SampleError]]:
    """`take_batch`; where the device has no memory, each picture is tried alone."""
    try:
        with whole_or_nothing(run):
            return take_batch(run, batch, frames=False)
    except SampleError as error:
        problem = SampleError(error.stage, error.reason)  # without what its frames hold on to
    if len(batch.named) == 1:
        return [(batch.named[0], problem)]
    empty_cache()
    return [bad for each in batch.alone() for bad in take_pictures(run, each)]


def compare_clips(run: Roundtrip, inputs: InputList, recipe: ClipRecipe) -> None:
    """The whole stream of clips, frame by frame; a clip that fails contributes nothing."""
    meter = run.comparison.meter
    for number, row in enumerate(inputs):
        try:
            if (problem := unsavable(run, frame_key(row.key, 0))) is not None:
                raise problem
            with (
                whole_or_nothing(run),
                open_frames(row.source, recipe, meter, run.stop.check) as clip,
            ):
                expected = expected_frames(clip.info, recipe)
                count_frames(meter, expected, number, len(inputs))
                figures = compare_frames(run, row, clip.frames)
                if not figures:
                    raise SampleError("decode_image", "the clip has no frame")
        except Filtered as error:
            run.leave_out(error.reason)
            continue
        except SampleError as error:
            run.fail(row.key, row.source, error.stage, error.reason)
            continue
        run.clips.append({"key": row.key, "figures": figures})
    all_counted(meter)


@contextmanager
def whole_or_nothing(run: Roundtrip) -> Iterator[None]:
    """Takes back what the block gave where a SampleError leaves it."""
    model_figures, rows = [of_model.mark() for of_model in run.model_figures], run.rows.mark()
    report = run.report.mark() if run.report else None
    sets = [of_set.mark() for of_set in run.sets]
    try:
        yield
    except SampleError:
        for of_model, mark in zip(run.model_figures, model_figures, strict=True):
            of_model.back_to(mark)
        run.rows.back_to(rows)
        for of_set, sums in zip(run.sets, sets, strict=True):
            of_set.back_to(sums)
        if run.report and report:
            run.report.back_to(report)
        raise


def compare_frames(
    run: Roundtrip, row: InputRow, frames: Iterable[ClipFrame]
) -> list[dict[str, float | None]]:
    """One clip, chunk by chunk; gives its figures for each model, or none without a frame."""
    temporal = chunk_size(run.comparison)
    size, first = temporal or run.batch_size, 0
    clips = [ClipMeasure() for _ in run.model_figures]
    before = [
        {name: len(v) for name, v in of_model.figures.items()} for of_model in run.model_figures
    ]
    for group in batches(frames, pixels_of, size, None if temporal else batch_elements(size)):
        run.stop.check()
        run.comparison.meter.begin()
        named = [
            Name(run.rows.count + i, frame_key(row.key, first + i), row.source)
            for i in range(len(group))
        ]
        batch = batch_of(run, named, [frame.pixels for frame in group])
        bad = take_batch(run, batch, frames=True, clips=clips)
        if bad:
            raise bad[0][1]
        first += len(group)
        run.comparison.meter.advance(len(group))
    if not first:
        return []
    means = map(frame_means, run.model_figures, before)
    return [mean | clip.figures() for mean, clip in zip(means, clips, strict=True)]


def frame_means(of_model: ModelFigures, before: Mapping[str, int]) -> dict[str, float | None]:
    """Mean over the frames that came later, of each measure that they have."""
    later = {name: values[before[name] :] for name, values in of_model.figures.items()}
    return {name: sum(values) / len(values) for name, values in later.items() if len(values)}


def take_batch(
    run: Roundtrip, batch: Batch, *, frames: bool, clips: Sequence[ClipMeasure] = ()
) -> list[tuple[Name, SampleError]]:
    """Compares a batch and hands its figures on; gives the pictures that no model may count.

    SampleError where the device has no memory for one picture of this size.
    """
    named, pixels = batch.named, batch.pixels
    several = len(named) > 1 and not frames
    try:
        results, sound = on_device(run, batch, clips, frames=frames)
    except RuntimeError as error:
        if not (is_out_of_memory(error) or (several and may_be_out_of_memory(error))):
            raise
        run.comparison.forget()
        height, width = pixels.shape[2:]
        what, room = "frame" if frames else "picture", run.comparison.least_room(height, width)
        reason = too_large(error, what, width, height, room=room)
        raise SampleError("encode or decode", reason) from error
    wrong = SampleError("encode", "the latent has values that are not finite")
    bad = [(name, wrong) for name, good in zip(named, sound, strict=True) if not good]
    if any(sound):
        indices = [i for i, good in enumerate(sound) if good]
        of_sound = pixels if all(sound) else pixels[indices]
        record(run, of_sound, [named[i] for i in indices], results)
    run.comparison.settle()
    return bad


def on_device(
    run: Roundtrip, batch: Batch, clips: Sequence[ClipMeasure], *, frames: bool
) -> tuple[list[Result], list[bool]]:
    """(the results of the pictures that are sound, which those are): all that needs memory there.

    Torch's errors where it is short; what was measured of sets by then has to be taken back.
    """
    images = run.comparison.accelerator.to_device(batch.pixels)
    keys = [name.key for name in batch.named]
    results = compare(run.comparison, images, keys, batch.noise, frames=frames)
    sound = finite_ones(results)
    if not all(sound):
        indices = [i for i, good in enumerate(sound) if good]
        results = [chosen(result, indices) for result in results]
        images = images[indices]
    if any(sound):
        measure_sets(run, images, results, clips)
    return results, sound


def measure_sets(
    run: Roundtrip, images: Tensor, results: Sequence[Result], clips: Sequence[ClipMeasure]
) -> None:
    """What is measured of more than one picture."""
    with run.comparison.stage("metrics", len(images)):
        for of_set in run.sets:
            of_set.add_real(images)
            for i, result in enumerate(results):
                of_set.add_fake(i, result.decoded)
        for clip, result in zip(clips, results, strict=False):
            clip.add(images, result.decoded)


def record(
    run: Roundtrip, pixels: Tensor, named: Sequence[Name], results: Sequence[Result]
) -> None:
    """Hands a batch's figures, and what is kept of its pictures, to where they belong."""
    latents = {id(r.latents): r.latents for r in results}
    on_cpu = {key: latent.cpu() for key, latent in latents.items()}
    listed = [{k: v.tolist() for k, v in {**r.figures, **r.alike}.items()} for r in results]
    # The latents of a shared encoder belong to the first who uses it.
    unused = dict(on_cpu)
    for of_model, result, lists in zip(run.model_figures, results, listed, strict=True):
        figures = {name: lists[name] for name in result.figures}
        alike = {name: lists[name] for name in result.alike}
        of_model.add(figures, unused.pop(id(result.latents), None), alike)
    with run.comparison.meter.stage("write", len(named)):
        keep(run, pixels, named, [result.decoded for result in results], list(on_cpu.values()))
    height, width = pixels.shape[2:]
    for i, name in enumerate(named):
        each = [{n: values[i] for n, values in lists.items()} for lists in listed]
        run.rows.add(asdict(name) | {"width": width, "height": height, "figures": each})


def keep(
    run: Roundtrip,
    pixels: Tensor,
    named: Sequence[Name],
    decoded: Sequence[Tensor],
    latents: Sequence[Tensor],
) -> None:
    """Writes reconstructions as PNG under <save>/<model>/<key>.png, and the report's pictures.

    Where a disk refuses them they are given up, and the figures go on.
    """
    job = run.comparison.job
    if (job.save is None and run.report is None) or run.problems:
        return
    pictures = [each.cpu() for each in decoded]
    try:
        for i, name in enumerate(named):
            of_all = [each[i] for each in pictures]
            if run.report is not None:
                run.report.add(name.index, pixels[i], of_all, [latent[i] for latent in latents])
            if job.save is not None:
                for compared, picture in zip(run.comparison.compared_models, of_all, strict=True):
                    save(Path(job.save), f"{compared.name}/{name.key}", picture)
    except StoreError as error:
        run.problems.append(str(error))


def unsavable(run: Roundtrip, key: str) -> SampleError | None:
    """Why no file can have a picture's name below --save, or None; before anything is done."""
    if run.comparison.job.save is None:
        return None
    folder = Path(run.comparison.job.save)
    try:
        for compared in run.comparison.compared_models:
            check_name(folder, folder / compared.name / f"{key}.png")
    except SampleError as error:
        return error
    return None


def save(folder: Path, name: str, picture: Tensor) -> None:
    """One picture as PNG below a folder; StoreError where it cannot be written."""
    path = folder / f"{name}.png"
    try:
        make_own_folder(path.parent, folder)
    except OSError as error:
        raise write_error(path.parent, error) from error
    atomic_write(path, [encode_image(picture, "png")])
