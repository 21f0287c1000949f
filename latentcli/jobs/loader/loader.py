"""Prepares tasks in worker processes or here: pictures and failed rows, in order."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from latentcli.jobs.loader.pixel_ring import Ring
from latentcli.jobs.loader.pool import worker_pool
from latentcli.jobs.loader.prepare import (
    Chunk,
    Intake,
    Prepared,
    Task,
    prepare,
    prepare_sample,
)
from latentcli.jobs.runtime.machine import cores, within_reach
from latentcli.jobs.runtime.meter import Meter, ignore

FEW_INPUTS = 64
"""Below this, starting worker processes costs more than they save."""
MANY = 10**6
"""Stands for a number of inputs that is not known: enough for all workers."""
MOST_ON_FEW = 8
"""Loader processes at most, unless the cores are more by LEFT_FREE."""
LEFT_FREE = 2
"""Cores that the main process keeps on a machine of many: for the model, and for what it writes."""
TIME_LIMIT = 120.0
"""Seconds that one input may take."""


def pick_workers(
    choice: int | None, inputs: int, beside: int = 1, note: Callable[[str], object] = ignore
) -> int:
    """Loader processes: the choice, or none for a few inputs, or one per core up to 8, and where
    there are more than ten cores all but two.

    `beside` is how many processes of the job share the cores; `note` is told where these do not
    carry the choice, and fewer are started.
    """
    if choice is not None:
        return within_reach(choice, beside, note)
    own = cores() // beside
    return 0 if inputs < FEW_INPUTS else max(min(own, MOST_ON_FEW), own - LEFT_FREE, 1)


@contextmanager
def open_chunks(
    intake: Intake,
    tasks: Iterable[Task],
    workers: int,
    *,
    time_limit: float = TIME_LIMIT,
    waiting: Callable[[], None] | None = None,
    ring: Ring | None = None,
) -> Iterator[Iterator[Chunk]]:
    """Chunks in the order of their tasks, prepared by `workers` processes that end with the block.

    A thread takes the tasks, a bounded number of inputs and bytes ahead of who takes the chunks;
    what they raise comes out where their next chunk would. `waiting` is called now and then while
    no chunk is ready, and may raise. An input that takes longer than `time_limit` seconds, or that
    twice ends its process, becomes a failed row. LatentCliError where processes end again and
    again without being at fault of one input. Pictures may lie in a `ring` that is given, and must
    then be released to it.

    With 0 workers all is done in this thread, with the same chunks: then nothing is read ahead,
    there is no time limit, and an input that ends its process ends this one.
    """
    if workers == 0:
        yield chunks_here(intake, tasks, waiting)
        return
    with worker_pool(intake, tasks, workers, time_limit, ring) as buffer:
        yield buffer.items(waiting)


def chunks_here(
    intake: Intake, tasks: Iterable[Task], waiting: Callable[[], None] | None = None
) -> Iterator[Chunk]:
    """The chunks of some tasks, made as they are asked for."""
    for task in tasks:
        if waiting is not None:
            waiting()
        yield prepare_task(task, intake)


def prepare_task(task: Task, intake: Intake) -> Chunk:
    """read, decode_image and preprocess for a few inputs; a bad one becomes a failed row."""
    seconds: dict[str, float] = {}
    prepared: list[Prepared] = []
    if task.samples is not None:
        prepared += (prepare_sample(raw, intake.recipe, seconds) for raw in task.samples)
    elif task.count:
        rows = intake.inputs.rows(task.unit, task.start, task.count)
        prepared += (prepare(row, intake.recipe, seconds) for row in rows)
    pixels = tuple(pixels for _, pixels in prepared)
    return Chunk(task, tuple(row for row, _ in prepared), pixels, seconds)


def timed(chunks: Iterable[Chunk], meter: Meter) -> Iterator[Chunk]:
    """Passes chunks on, with the workers' seconds and our waiting noted."""
    stream = iter(chunks)
    for number in itertools.count():
        start = time.perf_counter()
        chunk = next(stream, None)
        if chunk is None:
            return
        # Chunks come in order, one from each worker in turn: then all of them have started.
        starting = number < max(meter.workers, 1)
        meter.begin(again=starting)
        meter.waited += 0.0 if starting else time.perf_counter() - start
        for stage, seconds in chunk.seconds.items():
            meter.add(stage, seconds, len(chunk.rows))
        yield chunk
