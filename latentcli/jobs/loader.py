"""Input rows in, decoded and preprocessed pictures out, in order, through a torch DataLoader.

Workers get a task of three numbers and look the rows up in the frozen list on disk, so no worker
holds the list. Pictures travel as one uint8 tensor per size and task.
"""

from __future__ import annotations

import os
import signal
import time
import warnings
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from multiprocessing import resource_tracker

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from latentcli.core.errors import LatentCliError, SampleError
from latentcli.core.types import InputRow, Row
from latentcli.images.codec import DecodePolicy, decode_image
from latentcli.images.preprocess import PreprocessSpec, preprocess
from latentcli.jobs.memory import reuse_heap
from latentcli.jobs.meter import IMAGE_STAGES
from latentcli.jobs.signals import STOPPING
from latentcli.shards.inputs import InputList
from latentcli.shards.read import read_bytes

Prepared = tuple[Row, Tensor | None]
"""A row, and its pixels unless it failed."""
TASK_SIZE = 8
"""Inputs a worker takes at once: few enough to share the work, enough to hide the hand-over."""
FEW_INPUTS = 64
"""Below this, starting worker processes costs more than they save."""


@dataclass(frozen=True, slots=True)
class Task:
    """Rows start to start + count of a unit."""

    unit: int
    start: int
    count: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """One task done: rows in order, pictures stacked by size, and the seconds of each stage."""

    task: Task
    rows: tuple[Row, ...]
    places: tuple[tuple[int, int], ...]
    """Per row (index into stacks, index in that stack), or (-1, -1) where the row failed."""
    stacks: tuple[Tensor, ...]
    """uint8 [n, 3, H, W], one per size."""
    seconds: dict[str, float]

    def pictures(self) -> Iterator[Prepared]:
        """The rows with their pictures, in input order."""
        for row, (stack, place) in zip(self.rows, self.places, strict=True):
            # A copy: a stack holds shared memory and a file descriptor while any of it lives.
            yield row, None if stack < 0 else self.stacks[stack][place].clone()


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is done to each input."""

    policy: DecodePolicy
    preprocess: PreprocessSpec


@dataclass(frozen=True, slots=True)
class Intake:
    """The inputs and what is done to them; small enough to send to workers."""

    inputs: InputList
    recipe: Recipe


class ImageTasks(Dataset[Chunk]):
    """A map from tasks to chunks; the sampler gives the tasks."""

    def __init__(self, intake: Intake) -> None:
        self.intake = intake

    def __getitem__(self, task: Task) -> Chunk:
        rows = self.intake.inputs.rows(task.unit, task.start, task.count)
        return prepare_chunk(rows, task, self.intake.recipe)


def prepare_chunk(rows: Sequence[InputRow], task: Task, recipe: Recipe) -> Chunk:
    """read, decode_image and preprocess for a few inputs; a bad one becomes a failed row."""
    seconds = dict.fromkeys(IMAGE_STAGES, 0.0)
    prepared = [prepare(row, recipe, seconds) for row in rows]
    groups: dict[tuple[int, ...], list[Tensor]] = {}
    places = []
    for _, pixels in prepared:
        if pixels is None:
            places.append((-1, -1))
            continue
        group = groups.setdefault(tuple(pixels.shape), [])
        places.append((list(groups).index(tuple(pixels.shape)), len(group)))
        group.append(pixels)
    stacks = tuple(torch.stack(group) for group in groups.values())
    return Chunk(task, tuple(row for row, _ in prepared), tuple(places), stacks, seconds)


def prepare(source: InputRow, recipe: Recipe, seconds: dict[str, float]) -> Prepared:
    """One input to uint8 pixels [3, H, W], or to a row that says where and why it failed."""
    row = Row(source.key, source.source, "ok")
    clock = time.perf_counter()

    def lap(stage: str) -> None:
        nonlocal clock
        now = time.perf_counter()
        seconds[stage] += now - clock
        clock = now

    try:
        stage = "read"
        data = read_bytes(source.source)
        lap(stage)
        stage = "decode_image"
        decoded = decode_image(data, recipe.policy)
        lap(stage)
        row = replace(row, original_size=decoded.original_size, notes=decoded.notes)
        stage = "preprocess"
        ready = preprocess(decoded.image, recipe.preprocess)
        lap(stage)
    except SampleError as error:
        lap(error.stage)
        return replace(row, status="failed", stage=error.stage, error=error.reason), None
    except Exception as error:  # one strange picture must not end a job of a million
        lap(stage)
        reason = f"{type(error).__name__}: {error}"
        return replace(row, status="failed", stage=stage, error=reason), None
    return replace(row, resized_size=ready.resized_size, crop=ready.crop), ready.pixels


class TaskSampler(Sampler[Task]):
    """All tasks of some units, in order, made as they are asked for."""

    def __init__(self, intake: Intake, units: Sequence[int]) -> None:
        self.inputs = intake.inputs
        self.units = units
        # Pictures at their own size may be large, and everything in flight is in shared memory.
        self.size = TASK_SIZE if intake.recipe.preprocess.size is not None else 1

    def __iter__(self) -> Iterator[Task]:
        for unit in self.units:
            count = self.inputs.count(unit)
            for start in range(0, count, self.size):
                yield Task(unit, start, min(self.size, count - start))


def pick_workers(choice: int | None, inputs: int) -> int:
    """Loader processes: the choice, or one per core up to 8, or none for a few inputs."""
    if choice is not None:
        return choice
    return 0 if inputs < FEW_INPUTS else min(cores(), 8)


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))


def load_chunks(intake: Intake, units: Sequence[int], workers: int) -> Generator[Chunk]:
    """Chunks in input order, prepared by `workers` spawned processes, or here with 0.

    Closing the generator ends the workers before all is read.
    """
    with warnings.catch_warnings(), starting_workers():
        warnings.simplefilter("ignore")  # torch's own opinion of how many workers there should be
        chunks = iter(
            DataLoader(
                ImageTasks(intake),
                sampler=TaskSampler(intake, units),
                batch_size=None,
                num_workers=workers,
                multiprocessing_context="spawn" if workers else None,
                worker_init_fn=start_worker if workers else None,
                prefetch_factor=4 if workers else None,
            )
        )
    yield from chunks


@contextmanager
def open_chunks(intake: Intake, units: Sequence[int], workers: int) -> Iterator[Iterator[Chunk]]:
    """`load_chunks` for a block: its workers end with the block, however that ends.

    LatentCliError where one of them dies, which can come out anywhere in the block.
    """
    with closing(load_chunks(intake, units, workers)) as chunks:
        try:
            yield chunks
        except (RuntimeError, ConnectionError, EOFError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            ours = any(word in str(error) for word in ("DataLoader worker", "shared memory"))
            if isinstance(error, RuntimeError) and not ours:
                raise
            raise LatentCliError(
                f"A loader process failed ({reason}). Mostly it ran out of memory or"
                " of shared memory (/dev/shm; --shm-size for containers): use fewer --workers, or"
                " --workers 0. What is committed stays; run the same command again to go on."
            ) from error


@contextmanager
def starting_workers() -> Iterator[None]:
    """Processes started in here never see the signals that end a job: the parent ends them."""
    resource_tracker.ensure_running()  # its own start would unblock the signals again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start_worker(_: int) -> None:
    """One thread per worker, and no library's warnings in between the display's lines."""
    torch.set_num_threads(1)
    reuse_heap()
    warnings.simplefilter("ignore")
