"""Cuts units into tasks, and turns inputs into pixels or rows that say why they failed."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from latentcli.core.errors import Filtered, SampleError
from latentcli.core.pickled import by_fields
from latentcli.core.types import FILTERED, InputRow, Member, Row
from latentcli.images.codec import DecodedImage, DecodePolicy, decode_image, probe_jpeg
from latentcli.images.files.jpeg import JPEG_END
from latentcli.images.preprocess import (
    PreprocessSpec,
    geometry,
    preprocess,
    reduction,
    resizes_alike,
)
from latentcli.shards.sources.read_bytes import read_bytes
from latentcli.shards.store.input_list import InputList

Prepared = tuple[Row, Tensor | None]
"""A row, and its pixels, or the bytes that a device is to decode, unless it failed."""
TASK_SIZE = 8
"""Inputs of a task at most: few enough to share the work, enough to hide the hand-over."""
DEVICE_PIXELS = 2**25
"""Of a picture that a device decodes, at most."""
FILE_BYTES = 12
"""Of the same, per pixel that is encoded: four times what the pixels have, since files wait for
company as pixels do."""
TASK_BYTES = 8 * 2**20
"""Pixels of a task at most, if one picture is not more. Chunks come in order: the fewer large
pictures a worker has to finish for the next one, the fewer the others have to keep waiting."""


@dataclass(frozen=True, slots=True)
class RawSample:
    """An input whose bytes were read already."""

    row: Row
    """Of status failed where it was refused while it was read; then `data` is None."""
    data: bytes | None
    others: tuple[Member, ...] = ()
    """What else its sample holds; it stays in this process."""

    __reduce__ = by_fields

    @property
    def held(self) -> int:
        """Bytes of all of it."""
        return len(self.data or b"") + sum(len(member.data) for member in self.others)

    def alone(self) -> RawSample:
        """Without the others."""
        return replace(self, others=()) if self.others else self


@dataclass(frozen=True, slots=True)
class Task:
    """Rows start to start + count of a unit."""

    unit: int
    start: int
    count: int
    samples: tuple[RawSample, ...] | None = None
    """Their bytes; None where the rows are in the frozen list, for workers to read."""
    last: bool = False
    """The unit's last task; of an empty unit, its only one."""

    @property
    def held(self) -> int:
        """Bytes that came with it."""
        return sum(sample.held for sample in self.samples or ())


@dataclass(frozen=True, slots=True)
class Chunk:
    """One task done: its rows in order with their pictures, and the seconds of each stage."""

    task: Task
    rows: tuple[Row, ...]
    pixels: tuple[Tensor | None, ...]
    """uint8 [3, H, W] per row, or [n] of one whose file a device is to decode; None where the row
    failed. Each is in memory of its own, or in the slot of a ring, where it stays until it is
    released."""
    seconds: Mapping[str, float]
    """`read` is in it only where workers read: they do so while they decode other inputs."""

    def pictures(self) -> Iterator[Prepared]:
        """The rows with their pictures, in input order."""
        return zip(self.rows, self.pixels, strict=True)


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is done to each input."""

    policy: DecodePolicy
    preprocess: PreprocessSpec
    decode_on: str = "cpu"
    """gpu: files that a device can decode and resize are prepared as their bytes, once all of these
    are known to be sound."""


@dataclass(frozen=True, slots=True)
class Intake:
    """The inputs and what is done to them; small enough to send to workers."""

    inputs: InputList
    recipe: Recipe
    parts: Mapping[int, Sequence[int]] = field(default_factory=dict)
    """Units of which only some inputs are taken: the indices of these, ascending."""


def unit_tasks(intake: Intake, units: Iterable[int]) -> Iterator[Task]:
    """All tasks of some units of the frozen list, in order, made as they are asked for."""
    size = task_size(intake.recipe.preprocess)
    for unit in units:
        count = intake.inputs.count(unit)
        if unit in intake.parts:
            indices = intake.parts[unit]
            yield from (Task(unit, index, 1, last=index == indices[-1]) for index in indices)
            continue
        for start in range(0, max(count, 1), size):
            taken = min(size, count - start)
            yield Task(unit, start, taken, last=start + taken == count)


def task_size(spec: PreprocessSpec) -> int:
    """Inputs of a task; 1 where pictures may be of any size."""
    size = picture_bytes(spec)
    return 1 if size is None else max(1, min(TASK_SIZE, TASK_BYTES // size))


def picture_bytes(spec: PreprocessSpec) -> int | None:
    """About what no prepared picture exceeds; None where they may be of any size."""
    pixels = None
    if spec.size is not None:
        pixels = spec.size[0] * spec.size[1]
    elif spec.buckets is not None:
        pixels = spec.buckets.most_pixels
    return None if pixels is None else 3 * pixels


def read_sample(source: InputRow) -> RawSample:
    """read: an input's bytes, or a row that says why it failed."""
    row = Row(source.key, source.source, "ok")
    try:
        return RawSample(row, read_bytes(source.source))
    except SampleError as error:
        return RawSample(failed(row, error.stage, error.reason), None)
    except Exception as error:  # one strange input must not end a job of a million
        return RawSample(failed(row, "read", f"{type(error).__name__}: {error}"), None)


def prepare_sample(
    sample: RawSample,
    recipe: Recipe,
    seconds: dict[str, float],
    entering: Callable[[str], object] = str,
) -> Prepared:
    """decode_image and preprocess; `entering` is told of each of them before it begins."""
    row, data = sample.row, sample.data
    if data is None:
        return row, None
    row = replace(row, sha256=hashlib.sha256(data).hexdigest())
    clock = time.perf_counter()

    def lap(stage: str) -> None:
        nonlocal clock
        now = time.perf_counter()
        seconds[stage] = seconds.get(stage, 0.0) + now - clock
        clock = now

    try:
        entering(stage := "decode_image")
        sound = probed(data, recipe) if recipe.decode_on == "gpu" else None
        decoded = sound or decode_image(
            data, recipe.policy, partial(reduction, spec=recipe.preprocess)
        )
        lap(stage)
        notes = row.notes + decoded.notes
        row = replace(row, original_size=decoded.original_size, notes=notes)
        entering(stage := "preprocess")
        if sound is not None:
            resized, crop = geometry(sound.original_size, recipe.preprocess)
            lap(stage)
            return replace(row, resized_size=resized, crop=crop), file_tensor(data)
        ready = preprocess(decoded.rgb, recipe.preprocess, decoded.original_size)
        lap(stage)
    except SampleError as error:
        lap(stage)
        return refused(row, error), None
    except Exception as error:  # one strange picture must not end a job of a million
        lap(stage)
        return failed(row, stage, f"{type(error).__name__}: {error}"), None
    return replace(row, resized_size=ready.resized_size, crop=ready.crop), ready.pixels


def probed(data: bytes, recipe: Recipe) -> DecodedImage | None:
    """The picture in few pixels where a device is to decode the file, of which no data are damaged.

    None where it is to be decoded here; SampleError where it cannot be decoded at all. It depends
    on nothing but the file and the recipe.
    """
    found = probe_jpeg(data, recipe.policy)
    if found is None or found.notes or math.prod(found.original_size) > DEVICE_PIXELS:
        return None
    try:
        left, top, right, bottom = geometry(found.original_size, recipe.preprocess)[1]
        alike = resizes_alike(found.original_size, recipe.preprocess)
    except SampleError:  # `preprocess` tells it in its turn
        return None
    small = len(data) <= FILE_BYTES * (right - left) * (bottom - top)
    return found if alike and small else None


def file_tensor(data: bytes) -> Tensor:
    """The bytes of a JPEG file, uint8 [n], with the end marker that many whole files lack."""
    end = b"" if data.endswith(JPEG_END) else JPEG_END
    return torch.frombuffer(bytearray(data + end), dtype=torch.uint8)


def prepare(source: InputRow, recipe: Recipe, seconds: dict[str, float]) -> Prepared:
    """One input to uint8 pixels [3, H, W], or to a row that says where and why it failed.

    The seconds of read, decode_image and preprocess are added to `seconds`.
    """
    start = time.perf_counter()
    sample = read_sample(source)
    seconds["read"] = seconds.get("read", 0.0) + time.perf_counter() - start
    return prepare_sample(sample, recipe, seconds)


def refused(row: Row, error: SampleError) -> Row:
    """The row of an input that a stage, or a filter of the job, refused."""
    found = failed(row, error.stage, error.reason)
    return replace(found, status=FILTERED) if isinstance(error, Filtered) else found


def failed(row: Row, stage: str, reason: str) -> Row:
    """The row of an input that failed at a stage."""
    return replace(row, status="failed", stage=stage, error=reason)
