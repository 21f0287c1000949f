"""Supervises one loader process from a thread: starts, feeds, watches and replaces it."""

from __future__ import annotations

import errno
import os
import select
import signal
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from itertools import groupby
from typing import NoReturn

from latentcli.core.errors import LatentCliError
from latentcli.jobs.loader.pixel_ring import Ring
from latentcli.jobs.loader.prepare import Chunk, Intake, failed
from latentcli.jobs.loader.reorder_buffer import ReorderBuffer
from latentcli.jobs.loader.worker_handle import LOOK, Assignment, Process, TaskInput, WorkerDied

QUEUED = 16
"""Inputs that a worker has in hand or waiting, unless one task has more."""
KILLED = f"signal {signal.SIGKILL:d}"
"""No codec does that: the system does, when memory runs out."""
FEW = 1000
"""Finished inputs within which deaths that no input explains are counted."""


class TooLong(Exception):
    """A worker has the same input in hand for longer than it may."""


ADVICE = {
    errno.EMFILE: "`ulimit -n` says how many files a process may open: allow more, or use",
    errno.EAGAIN: "`ulimit -u` says how many processes there may be: allow more, or use",
}
"""How to go on where the system refuses something by a limit."""


def give_up(reason: str, error: OSError | None = None) -> NoReturn:
    """Raises the error of a job that cannot have loader processes."""
    number = None if error is None else error.errno
    advice = ADVICE.get(number or 0, "The usual cause is too little memory: use")
    raise LatentCliError(
        f"The loader processes failed ({reason}). {advice} fewer --workers, or --workers 0. What is"
        " committed stays; run the same command again to finish the rest."
    ) from error


def cannot_start(error: OSError | RuntimeError) -> NoReturn:
    """As `give_up`, for what the system says where a process, thread or file is refused."""
    if isinstance(error, RuntimeError):  # what Python has for a thread that is refused
        error = OSError(errno.EAGAIN, str(error))
    give_up(f"one cannot be started: {error.strerror}", error)


@dataclass(slots=True)
class Deaths:
    """Decides how many are too many."""

    workers: int
    finished: int = 0
    """Inputs that workers gave back."""
    unexplained: list[int] = field(default_factory=list)
    """How many inputs were finished at each death that is no input's fault so far."""
    killed: int = 0
    """Inputs at which workers were killed, without any other finished in between."""

    def done(self, inputs: int) -> None:
        """Workers gave back some inputs."""
        self.finished += inputs
        self.killed = 0

    def count_unexplained(self, how: str) -> None:
        """A worker died; LatentCliError where that goes on and on."""
        recent = [when for when in self.unexplained if self.finished - when < FEW]
        self.unexplained = [*recent, self.finished]
        if len(self.unexplained) > self.workers + 2:
            give_up(f"{len(self.unexplained)} of them died, the last by {how}")

    def blame_input(self, how: str) -> None:
        """A worker died again at the same input; LatentCliError where all inputs end like that."""
        del self.unexplained[-1:]
        self.killed += how == KILLED
        if self.killed > self.workers + 1:
            give_up(f"{self.killed} inputs in a row ended their process, by {how}")


@dataclass(frozen=True, slots=True)
class PoolState:
    """What all supervisors of a job share."""

    intake: Intake
    time_limit: float
    buffer: ReorderBuffer[Chunk]
    deaths: Deaths
    """Guarded by the buffer's lock."""
    ring: Ring | None = None
    waiting: deque[Assignment] = field(default_factory=deque)
    """Tasks for which no worker had room, in order; guarded by the buffer's lock."""
    starting: threading.Lock = field(default_factory=threading.Lock)
    """Held while a process starts or ends, so that none starts once the pool has been closed."""

    def settle(self, assignment: Assignment) -> None:
        """Passes a task on if all of it is known."""
        chunk = assignment.chunk()
        if chunk is not None:
            self.buffer.put(assignment.number, chunk)


class Supervisor:
    """The thread of one worker."""

    def __init__(self, shared: PoolState) -> None:
        self.shared = shared
        self.thread = threading.Thread(target=self._run, name="supervisor", daemon=True)
        self.load = 0
        """Inputs that its worker has in hand or waiting; guarded by the buffer's lock."""
        self._given: deque[Assignment] = deque()
        self._wakeup = os.eventfd(0, os.EFD_NONBLOCK)
        self._process: Process | None = None
        self._suspect: TaskInput | None = None
        """What was in hand when the last worker died."""

    def join(self) -> None:
        """Waits for the thread's end, after `stop`."""
        if self.thread.ident is not None:
            self.thread.join()
        os.close(self._wakeup)

    def has_room(self, assignment: Assignment) -> bool:
        """Whether the worker is to have a task now; asked with the buffer's lock."""
        return not self.load or self.load + assignment.task.count <= QUEUED

    def give(self, assignment: Assignment) -> None:
        """A task for the worker; called with the buffer's lock."""
        self._accept(assignment)
        os.eventfd_write(self._wakeup, 1)

    def _accept(self, assignment: Assignment) -> None:
        self.load += assignment.task.count
        self._given.append(assignment)

    def _take_waiting(self) -> None:
        """Takes tasks that wait, as far as there is room: nobody has to be woken for that."""
        waiting = self.shared.waiting
        with self.shared.buffer.changed:
            while waiting and self.has_room(waiting[0]):
                self._accept(waiting.popleft())

    def stop(self) -> None:
        """Kills the worker: then the thread ends. Called with the pool's lock."""
        if self._process is not None:
            self._process.process.kill()
        os.eventfd_write(self._wakeup, 1)

    def _run(self) -> None:
        left: list[TaskInput] = []
        try:
            while (process := self._start()) is not None:
                left = self._life(process, left)
        except BaseException as error:
            self.shared.buffer.fail(error)

    def _start(self) -> Process | None:
        with self.shared.starting:
            try:
                over, intake, ring = self.shared.buffer.over, self.shared.intake, self.shared.ring
                self._process = None if over else Process(intake, ring)
            except OSError as error:
                cannot_start(error)
            return self._process

    def _life(self, process: Process, left: list[TaskInput]) -> list[TaskInput]:
        """All of one worker's life; the inputs that it leaves behind."""
        reason = "its start"
        try:
            try:
                process.wait_for_start(self.shared.time_limit)
            except OSError as error:
                cannot_start(error)
            again, left = left, []
            for _, pieces in groupby(again, key=lambda piece: piece[0].number):
                of_task = list(pieces)
                process.tell(of_task[0][0], [index for _, index in of_task])
            self._serve(process)
        except (WorkerDied, TooLong) as error:
            in_hand = process.in_hand()
            with self.shared.starting:
                reason = process.end()
                self._process = None
            if not self.shared.buffer.over:
                self._judge(process, error, in_hand, reason)
        finally:
            if self._process is not None:
                with self.shared.starting:
                    process.end()
                    self._process = None
        return [*(piece for piece in process.sent if piece[0].known[piece[1]] is None), *left]

    def _serve(self, process: Process) -> None:
        """Hands out and takes in until the pool is closed; WorkerDied, TooLong."""
        poll = select.poll()
        poll.register(self._wakeup, select.POLLIN)
        silent, before = 0.0, process.in_hand()
        while not self.shared.buffer.over:
            self._take_waiting()
            while self._given:
                assignment = self._given.popleft()
                process.tell(assignment, range(assignment.task.count))
            poll.register(process.wire, select.POLLIN | (select.POLLOUT if process.outgoing else 0))
            start = time.perf_counter()
            events = dict(poll.poll(LOOK * 1000))
            # A job that was stopped for an hour has not waited for that hour.
            silent += min(time.perf_counter() - start, 2 * LOOK)
            if self._wakeup in events:
                os.eventfd_read(self._wakeup)
            if event := events.get(process.wire.fileno(), 0):
                process.push()
                if event != select.POLLOUT:
                    self._receive(process)
            now = process.in_hand()
            if now is None or before is None or now[0] != before[0]:
                silent, before = 0.0, now
            elif silent > self.shared.time_limit:
                raise TooLong

    def _receive(self, process: Process) -> None:
        """Takes what a worker has prepared, all of one task."""
        assignment, done = process.receive(self.shared.buffer.admit)
        with self.shared.buffer.changed:
            self.shared.deaths.done(done)
            self.load -= done
            self.shared.settle(assignment)

    def _judge(
        self, process: Process, error: Exception, in_hand: tuple[TaskInput, str] | None, how: str
    ) -> None:
        """Finds what a worker ended by: an input fails that hung, or was in hand at two deaths."""
        suspect, self._suspect = self._suspect, in_hand and in_hand[0]
        deaths, explained = self.shared.deaths, isinstance(error, TooLong)
        if not explained:
            explained = in_hand is not None and suspect == in_hand[0]
            with self.shared.buffer.changed:
                (deaths.blame_input if explained else deaths.count_unexplained)(how)
        if in_hand is None or not explained:
            return
        (assignment, index), stage = in_hand
        reason = f"the process that decoded it died ({how})"
        if isinstance(error, TooLong):
            reason = f"took longer than {self.shared.time_limit:g} s (--time-limit)"
        row = failed(assignment.row(self.shared.intake, index), stage, reason)
        self._suspect = None
        assignment.known[index] = row, None
        process.spare(assignment, index)
        with self.shared.buffer.changed:
            self.load -= 1
            self.shared.settle(assignment)
