"""Runs the loader's worker processes, and gives their chunks in order."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from latentcli.jobs.loader.pixel_ring import AHEAD, Ring
from latentcli.jobs.loader.prepare import Chunk, Intake, Task
from latentcli.jobs.loader.reorder_buffer import ReorderBuffer
from latentcli.jobs.loader.supervisor import Deaths, PoolState, Supervisor, cannot_start
from latentcli.jobs.loader.worker_handle import Assignment
from latentcli.jobs.runtime.signals import held_back

AHEAD_BYTES = 512 * 2**20
"""Bytes of all that is ahead: a ring's, those that tasks came with, and pixels without a slot."""
BESIDE_RING = 128 * 2**20
"""Bytes that are left beside a ring, however large it is."""
REFILL = 3 / 4
"""Share of what may be ahead to which it falls before more tasks are taken, several at once."""
GRACE = 1.0
"""Seconds that the thread that takes the tasks gets to end."""


class Pool:
    """The workers of a job and their supervisors, from `start` to `close`."""

    def __init__(
        self, intake: Intake, workers: int, time_limit: float, ring: Ring | None = None
    ) -> None:
        ahead = AHEAD * workers if ring is None else ring.ahead
        self.buffer: ReorderBuffer[Chunk] = ReorderBuffer(ahead, bytes_beside(ring), REFILL)
        self._shared = PoolState(intake, time_limit, self.buffer, Deaths(workers), ring)
        self._supervisors: list[Supervisor] = []
        self._dispatcher: threading.Thread | None = None
        try:
            for _ in range(workers):
                self._supervisors.append(Supervisor(self._shared))
        except OSError as error:
            self.close()
            cannot_start(error)

    def start(self, tasks: Iterable[Task]) -> None:
        """Starts the workers, and a thread that hands out the tasks; LatentCliError where the
        system has no more threads.
        """
        self._dispatcher = threading.Thread(
            target=self._dispatch, args=(tasks,), name="dispatch", daemon=True
        )
        with held_back():  # threads started in here never see the signals that end a job
            for thread in (
                *(supervisor.thread for supervisor in self._supervisors),
                self._dispatcher,
            ):
                try:
                    thread.start()
                except RuntimeError as error:
                    cannot_start(error)

    def close(self) -> None:
        """Ends all processes at once, whatever they do.

        The thread that reads the tasks gets a moment: it may wait for a pipe that nobody writes to.
        """
        self.buffer.close()
        with self._shared.starting:
            for supervisor in self._supervisors:
                supervisor.stop()
        for supervisor in self._supervisors:
            supervisor.join()
        if self._dispatcher is not None and self._dispatcher.ident is not None:
            self._dispatcher.join(GRACE)

    def _dispatch(self, tasks: Iterable[Task]) -> None:
        try:
            for task in tasks:
                number = self.buffer.enter(max(task.count, 1), task.held)
                if number is None:
                    return
                ring = self._shared.ring
                slot = None if ring is None or not task.count else ring.take(task.count, task.start)
                assignment = Assignment.of(number, task, slot)
                if task.count:
                    self._assign(assignment)
                else:
                    self._shared.settle(assignment)
        except BaseException as error:
            self.buffer.end(error)
        else:
            self.buffer.end()
        finally:
            # A generator lets go of its files here, in the thread that it runs in.
            if hasattr(tasks, "close"):
                tasks.close()

    def _assign(self, assignment: Assignment) -> None:
        """Gives a task to the worker with the least to do, or else to the first that has room."""
        with self.buffer.changed:
            idlest = min(self._supervisors, key=lambda supervisor: supervisor.load)
            if idlest.has_room(assignment):
                idlest.give(assignment)
            else:
                self._shared.waiting.append(assignment)


def bytes_beside(ring: Ring | None) -> int:
    """Bytes that may be ahead outside of a ring: most pixels are in it, where there is one."""
    return AHEAD_BYTES if ring is None else max(AHEAD_BYTES - ring.memory.nbytes, BESIDE_RING)


@contextmanager
def worker_pool(
    intake: Intake,
    tasks: Iterable[Task],
    workers: int,
    time_limit: float,
    ring: Ring | None = None,
) -> Iterator[ReorderBuffer[Chunk]]:
    """The buffer through which the chunks of some tasks come; its processes end with the block."""
    pool = Pool(intake, workers, time_limit, ring)
    try:
        pool.start(tasks)
        yield pool.buffer
    finally:
        pool.close()
