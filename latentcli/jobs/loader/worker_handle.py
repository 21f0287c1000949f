"""Starts a loader process, and exchanges orders and pictures with it."""

from __future__ import annotations

import math
import multiprocessing
import os
import socket
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from latentcli.core.types import Row
from latentcli.jobs.loader.prepare import Chunk, Intake, Prepared, Task
from latentcli.jobs.loader.worker import (
    Broken,
    Order,
    Page,
    PreparedBatch,
    message_of,
    receive_into,
    receive_message,
    run_worker,
)

GRACE = 2.0
"""Seconds that a killed process gets to end."""

_CONTEXT = multiprocessing.get_context("spawn")


class WorkerDied(Exception):
    """A worker died."""


@dataclass(slots=True, eq=False)
class Assignment:
    """A task on its way, and what is known of its inputs."""

    number: int
    task: Task
    known: list[Prepared | None]
    seconds: dict[str, float]

    @classmethod
    def of(cls, number: int, task: Task) -> Assignment:
        """Nothing is known yet."""
        return cls(number, task, [None] * task.count, {})

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
        rows, pixels = tuple(row for row, _ in known), tuple(pixels for _, pixels in known)
        return Chunk(self.task, rows, pixels, self.seconds)

    def row(self, intake: Intake, index: int) -> Row:
        """The row of an input of which nothing more is known."""
        if self.task.samples is not None:
            return self.task.samples[index].row
        source = intake.inputs.rows(self.task.unit, self.task.start + index, 1)[0]
        return Row(source.key, source.source, "ok")

    def order(self, indices: list[int]) -> Order:
        """Some of its inputs, for a worker."""
        start, samples = self.task.start, self.task.samples
        return Order(
            self.task.unit,
            tuple(start + index for index in indices),
            # What else a sample holds would only travel.
            None if samples is None else tuple(samples[index].alone() for index in indices),
        )


TaskInput = tuple[Assignment, int]
"""One input: a task and the index of one of its rows."""


class Process:
    """One running worker, seen from here."""

    def __init__(self, intake: Intake) -> None:
        self.wire, theirs = socket.socketpair()
        self.process = _CONTEXT.Process(
            target=run_worker, args=(theirs, intake), name="loader", daemon=True
        )
        with theirs:
            self.process.start()
        self.page: Page | None = None
        self.sent: deque[TaskInput] = deque()
        """Inputs that it was ordered to prepare and has not given back, in order."""
        self.received = 0
        self.outgoing: deque[memoryview] = deque()

    def wait_for_start(self) -> None:
        """Waits until it has started; WorkerDied where it dies before that."""
        try:
            message, descriptors, _, _ = socket.recv_fds(self.wire, 1, 1)
        except OSError as error:
            raise WorkerDied from error
        if not message:
            raise WorkerDied
        self.page = Page(descriptors[0])
        os.close(descriptors[0])

    def tell(self, pieces: Iterable[TaskInput]) -> None:
        """Orders inputs; they leave with `push`."""
        for _, of_task in groupby(pieces, key=lambda piece: piece[0].number):
            ordered = list(of_task)
            order = ordered[0][0].order([index for _, index in ordered])
            self.outgoing.append(memoryview(message_of(order)))
            self.sent.extend(ordered)
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
        try:
            frame: PreparedBatch | Broken = receive_message(self.wire)
            if isinstance(frame, Broken):
                raise frame.error
            pixels = self._pixels(frame, admit)
        except (ConnectionError, EOFError) as error:
            raise WorkerDied from error
        assignment = self.sent[0][0]
        for row, picture in zip(frame.rows, pixels, strict=True):
            _, index = self.sent.popleft()
            assignment.known[index] = row, picture
        self.received += len(pixels)
        assignment.spent(frame.seconds)
        return assignment, len(pixels)

    def _pixels(
        self, frame: PreparedBatch, admit: Callable[[int, int], bool]
    ) -> list[Tensor | None]:
        """The pictures of a frame, each in memory of its own."""
        held = sum(math.prod(shape) for shape in frame.shapes if shape is not None)
        if not admit(self.sent[0][0].number, held):
            raise WorkerDied
        pixels = [
            None if shape is None else torch.empty(shape, dtype=torch.uint8)
            for shape in frame.shapes
        ]
        views = [tensor.numpy().reshape(-1).data for tensor in pixels if tensor is not None]
        receive_into(self.wire, views)
        return pixels

    def in_hand(self) -> tuple[TaskInput, str] | None:
        """The input that it works on, and the stage; None if it works on none."""
        if self.page is None:
            return None
        begun, stage = self.page.read()
        ahead = begun - self.received - 1
        return (self.sent[ahead], stage) if 0 <= ahead < len(self.sent) else None

    def end(self) -> str:
        """Kills it if it lives; how it ended, in words."""
        self.process.kill()
        self.process.join(GRACE)
        self.wire.close()
        if self.page is not None:
            self.page.close()
        code = self.process.exitcode
        if code is None:
            return "does not end"
        return f"signal {-code}" if code < 0 else f"exit code {code}"
