"""Starts a loader process, and exchanges orders and pictures with it."""

from __future__ import annotations

import errno
import math
import os
import select
import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from latentcli.core.types import Row
from latentcli.jobs.loader import fork_server
from latentcli.jobs.loader.pixel_ring import Ring
from latentcli.jobs.loader.prepare import Chunk, Intake, Prepared, Task
from latentcli.jobs.loader.worker import (
    Broken,
    Order,
    Page,
    PreparedBatch,
    run_worker,
)
from latentcli.jobs.runtime.frames import message_of, receive_into, receive_message, wire_pair

START_LIMIT = 60.0
"""Seconds that a process gets to start, at least."""
LOOK = 0.25
"""Seconds between two looks at a worker that is silent."""


class WorkerDied(Exception):
    """A worker died."""


@dataclass(slots=True, eq=False)
class Assignment:
    """A task on its way, and what is known of its inputs."""

    number: int
    task: Task
    known: list[Prepared | None]
    seconds: dict[str, float]
    first_slot: int | None = None
    """In the ring, of the picture of its first input; those of the others come after it."""

    @classmethod
    def of(cls, number: int, task: Task, first_slot: int | None = None) -> Assignment:
        """Nothing is known yet."""
        return cls(number, task, [None] * task.count, {}, first_slot)

    def spent(self, seconds: dict[str, float]) -> None:
        """Adds a worker's seconds; those of reading only where the worker read."""
        for stage, more in seconds.items():
            if stage != "read" or self.task.samples is None:
                self.seconds[stage] = self.seconds.get(stage, 0.0) + more

    def chunk(self) -> Chunk | None:
        """The task done, or None while an input is unknown."""
        known = [prepared for prepared in self.known if prepared is not None]
        if len(known) < len(self.known):
            return None
        rows, pixels = zip(*known, strict=True) if known else ((), ())
        return Chunk(self.task, rows, pixels, self.seconds)

    def row(self, intake: Intake, index: int) -> Row:
        """The row of an input of which nothing more is known."""
        if self.task.samples is not None:
            return self.task.samples[index].row
        source = intake.inputs.rows(self.task.unit, self.task.start + index, 1)[0]
        return Row(source.key, source.source, "ok")

    def order(self, indices: Sequence[int]) -> Order:
        """Some of its inputs, for a worker."""
        start, samples, first = self.task.start, self.task.samples, self.first_slot
        return Order(
            self.task.unit,
            tuple(start + index for index in indices),
            # What else a sample holds would only travel.
            None if samples is None else tuple(samples[index].alone() for index in indices),
            None if first is None else tuple(first + index for index in indices),
        )


TaskInput = tuple[Assignment, int]
"""One input: a task and the index of one of its rows."""


class Process:
    """One running worker, seen from here."""

    def __init__(self, intake: Intake, ring: Ring | None = None) -> None:
        self.wire, theirs = wire_pair()
        slot_bytes = None if ring is None else ring.slot_bytes
        self.ring = ring
        with theirs:
            self.process = fork_server.start(run_worker, theirs)
        self.outgoing: deque[memoryview] = deque([memoryview(message_of((intake, slot_bytes)))])
        self.page: Page | None = None
        self.sent: deque[TaskInput] = deque()
        """Inputs that it was ordered to prepare and has not given back, in order."""
        self.received = 0

    def wait_for_start(self, limit: float) -> None:
        """Waits until it has started, for so many seconds or START_LIMIT, whichever is more.

        WorkerDied where it has not by then, or dies before; what the work itself raised. OSError
        where this process cannot have another open file.
        """
        self._wait_for_answer(max(limit, START_LIMIT))
        try:
            message, descriptors, flags, _ = socket.recv_fds(self.wire, 1, 1)
            if not message:
                raise WorkerDied
        except ConnectionError as error:
            raise WorkerDied from error
        if not descriptors:
            if not flags & socket.MSG_CTRUNC:
                self._frame(message)
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        self.page = Page(descriptors[0])
        os.close(descriptors[0])
        if self.ring is not None:
            try:
                socket.send_fds(self.wire, [b"\0"], [self.ring.descriptor])
            except ConnectionError as error:
                raise WorkerDied from error

    def _wait_for_answer(self, limit: float) -> None:
        """Sends what it takes, until it says something or has gone; WorkerDied after `limit`."""
        poll, silent = select.poll(), 0.0
        while True:
            self.push()
            poll.register(self.wire, select.POLLIN | (select.POLLOUT if self.outgoing else 0))
            events = dict(poll.poll(LOOK * 1000)).get(self.wire.fileno(), 0)
            if events & ~select.POLLOUT:
                return
            # Time in which this process was stopped is not counted.
            silent += 0.0 if events else LOOK
            if silent >= limit:
                raise WorkerDied

    def tell(self, assignment: Assignment, indices: Sequence[int]) -> None:
        """Orders inputs of a task; what the socket does not take leaves with the next `push`."""
        self.outgoing.append(memoryview(message_of(assignment.order(indices))))
        self.sent.extend((assignment, index) for index in indices)
        self.push()

    def push(self) -> None:
        """Sends what the socket takes without waiting: a worker that hangs takes nothing."""
        try:
            while self.outgoing:
                sent = self.wire.send(self.outgoing[0], socket.MSG_DONTWAIT)
                rest = self.outgoing.popleft()[sent:]
                if rest:
                    self.outgoing.appendleft(rest)
        except BlockingIOError:
            return
        except OSError as error:
            raise WorkerDied from error

    def receive(self, admit: Callable[[int, int], bool]) -> tuple[Assignment, int]:
        """Takes a frame in: (its task, how many of its inputs became known).

        `admit` gets the task's number and the bytes to come, and may wait. WorkerDied where it
        dies, or `admit` says no; what the work itself raised.
        """
        frame = self._frame()
        try:
            pixels = self._pixels(frame, admit)
        except (ConnectionError, EOFError) as error:
            raise WorkerDied from error
        assignment = self.sent[0][0]
        for row, picture, slot in zip(frame.rows, pixels, frame.slots, strict=True):
            _, index = self.sent.popleft()
            assignment.known[index] = row, picture
            if slot is None:
                self.spare(assignment, index)
        self.received += len(pixels)
        assignment.spent(frame.seconds)
        return assignment, len(pixels)

    def _frame(self, begun: bytes = b"") -> PreparedBatch:
        """The next one, of which the first bytes have come; what the work itself raised."""
        try:
            frame: PreparedBatch | Broken = receive_message(self.wire, begun)
        except (ConnectionError, EOFError) as error:
            raise WorkerDied from error
        if isinstance(frame, Broken):
            raise frame.error
        return frame

    def spare(self, assignment: Assignment, index: int) -> None:
        """The slot of an input is free, if it has one: no process will write into it."""
        if self.ring is not None and assignment.first_slot is not None:
            self.ring.give_back([assignment.first_slot + index])

    def _pixels(
        self, frame: PreparedBatch, admit: Callable[[int, int], bool]
    ) -> list[Tensor | None]:
        """The pictures of a frame, each in its slot or in memory of its own."""
        if self.ring is not None and (lying := self.ring.row(frame.slots, frame.shapes)):
            return [*lying]
        places = list(zip(frame.shapes, frame.slots, strict=True))
        sent = [shape for shape, slot in places if shape is not None and slot is None]
        if sent and not admit(self.sent[0][0].number, sum(map(math.prod, sent))):
            raise WorkerDied
        own = [torch.empty(shape, dtype=torch.uint8) for shape in sent]
        receive_into(self.wire, [tensor.numpy().reshape(-1).data for tensor in own])
        rest = iter(own)
        return [self._picture(shape, slot, rest) for shape, slot in places]

    def _picture(
        self, shape: tuple[int, ...] | None, slot: int | None, sent: Iterator[Tensor]
    ) -> Tensor | None:
        if shape is None:
            return None
        if slot is None:
            return next(sent)
        assert self.ring is not None
        return self.ring.at(slot, shape)

    def in_hand(self) -> tuple[TaskInput, str] | None:
        """The input that it works on, and the stage; None if it works on none."""
        if self.page is None:
            return None
        begun, stage = self.page.read()
        ahead = begun - self.received - 1
        return (self.sent[ahead], stage) if 0 <= ahead < len(self.sent) else None

    def end(self) -> str:
        """Kills it if it lives; how it ended, in words."""
        code = self.process.end()
        self.wire.close()
        if self.page is not None:
            self.page.close()
        if code is None:
            for assignment, _ in self.sent:
                assignment.first_slot = None  # it may write into what it has there
            return "does not end"
        return f"signal {-code}" if code < 0 else f"exit code {code}"
