"""Prepares pictures in a loader process, as ordered through a socket, until it is ended.

Frames on the socket are a length of 8 bytes and a pickle. Pictures lie in the slots of a ring that
the parent has too; the pixels of those that have none come after their frame as they are, and the
parent receives them straight into the tensors' memory.
"""

from __future__ import annotations

import mmap
import os
import pickle
import socket
import threading
import time
import traceback
import warnings
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from queue import SimpleQueue

import torch
from torch import Tensor

from latentcli.core.pickled import by_fields
from latentcli.core.types import InputRow, Row
from latentcli.jobs.loader.pixel_ring import Slots
from latentcli.jobs.loader.prepare import Intake, RawSample, Recipe, prepare_sample, read_sample
from latentcli.jobs.runtime.frames import message_of, receive_message, send_all
from latentcli.jobs.runtime.machine import reuse_heap

STAGES = ("read", "decode_image", "preprocess")
READS = 6
"""Inputs that a process reads at once: remote or slow storage answers many as fast as one."""
READ_BYTES = 32 * 2**20
"""Bytes that are read ahead of the input in hand, unless a single one has more."""
UNKNOWN_SIZE = 2**20
"""Taken for an input whose size is not in the list."""
MESSAGE_BYTES = 4 * 2**20
"""Pixels that are sent at once, unless a single picture has more."""


@dataclass(frozen=True, slots=True)
class Order:
    """Inputs to prepare: rows of a unit by their indices, or samples whose bytes were read."""

    unit: int
    indices: tuple[int, ...]
    samples: tuple[RawSample, ...] | None
    slots: tuple[int, ...] | None
    """Where the pictures are to be written."""

    __reduce__ = by_fields


@dataclass(frozen=True, slots=True)
class PreparedBatch:
    """Inputs prepared; the pixels of those that have a shape and no slot follow on the socket."""

    rows: list[Row]
    shapes: list[tuple[int, ...] | None]
    slots: list[int | None]
    """Where those lie that are in the ring."""
    seconds: dict[str, float]

    __reduce__ = by_fields


@dataclass(frozen=True, slots=True)
class Broken:
    """The work itself failed: not an input but what all of them need."""

    error: Exception


class Page:
    """Eight bytes of memory that parent and worker share: what the worker has in hand.

    The parent reads it when the worker has died or hangs, so a message would come too late.
    """

    def __init__(self, descriptor: int) -> None:
        self._memory = mmap.mmap(descriptor, mmap.PAGESIZE)

    def write(self, begun: int, stage: str) -> None:
        """`begun` inputs were taken in hand so far, the last of them is in this stage."""
        value = begun * len(STAGES) + STAGES.index(stage)
        self._memory[:8] = value.to_bytes(8, "little")

    def read(self) -> tuple[int, str]:
        """(inputs taken in hand so far, stage of the last of them)."""
        begun, stage = divmod(int.from_bytes(self._memory[:8], "little"), len(STAGES))
        return begun, STAGES[stage]

    def close(self) -> None:
        """Lets go of the memory."""
        self._memory.close()


@dataclass(frozen=True, slots=True)
class PendingRead:
    """An input that is read, or will be."""

    future: Future[RawSample]
    size: int
    slot: int | None
    last: bool
    """Of its order."""


class ReadAhead:
    """Inputs in, their bytes out in the same order, read by a few threads before they are taken."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(READS, thread_name_prefix="read")
        self._lock = threading.Lock()
        self._queue: SimpleQueue[PendingRead | Broken] = SimpleQueue()
        self._unstarted: deque[tuple[InputRow, PendingRead]] = deque()
        self._held = self._active = self._submitted = 0
        self._since = self._busy = 0.0

    def add(
        self, items: Sequence[InputRow | RawSample], slots: Sequence[int] | None = None
    ) -> None:
        """The inputs of an order."""
        places = [None] * len(items) if slots is None else slots
        for number, (item, slot) in enumerate(zip(items, places, strict=True), 1):
            last = number == len(items)
            if isinstance(item, RawSample):
                entry = PendingRead(Future(), 0, slot, last)
                entry.future.set_result(item)
            else:
                size = item.size if item.size >= 0 else UNKNOWN_SIZE
                entry = PendingRead(Future(), size, slot, last)
                self._unstarted.append((item, entry))
            self._queue.put(entry)
        self._start()

    def fail(self, error: Exception) -> None:
        """Stands for an order."""
        self._queue.put(Broken(error))

    def take(self) -> tuple[RawSample, int | None, bool]:
        """The next input with its bytes, its slot, and whether it is its order's last."""
        entry = self._queue.get()
        if isinstance(entry, Broken):
            raise entry.error
        sample = entry.future.result()
        with self._lock:
            self._held -= entry.size
        self._start()
        return sample, entry.slot, entry.last

    def seconds(self) -> float:
        """Seconds with at least one read under way, since the last call."""
        with self._lock:
            now = time.perf_counter()
            busy = self._busy + (now - self._since if self._active else 0.0)
            self._busy, self._since = 0.0, now
            return busy

    def _start(self) -> None:
        """Starts as many reads as there is room for; the first of all always has room."""
        with self._lock:
            while self._unstarted:
                row, entry = self._unstarted[0]
                if self._held and self._held + entry.size > READ_BYTES:
                    return
                self._unstarted.popleft()
                self._held += entry.size
                try:
                    self._pool.submit(self._read, row, entry.future)
                except RuntimeError:
                    # The system refuses another thread, but those that run get to it.
                    if not self._submitted:
                        raise
                self._submitted += 1

    def _read(self, row: InputRow, future: Future[RawSample]) -> None:
        with self._lock:
            if not self._active:
                self._since = time.perf_counter()
            self._active += 1
        sample = read_sample(row)
        with self._lock:
            self._active -= 1
            if not self._active:
                self._busy += time.perf_counter() - self._since
        future.set_result(sample)


@dataclass(slots=True)
class Outbox:
    """Prepared pictures that are not sent yet."""

    slots: Slots | None = None
    """Memory that the parent has too."""
    batch: PreparedBatch = field(default_factory=lambda: PreparedBatch([], [], [], {}))
    pixels: list[Tensor] = field(default_factory=list)
    """Of those that are to be sent."""
    held: int = 0
    """Bytes of these."""

    def add(self, row: Row, pixels: Tensor | None, slot: int | None) -> None:
        """One more; it is in its slot, if it has one, when this returns."""
        if pixels is None or slot is None or self.slots is None or not self.slots.put(slot, pixels):
            slot = None
        self.batch.rows.append(row)
        self.batch.shapes.append(None if pixels is None else tuple(pixels.shape))
        self.batch.slots.append(slot)
        if pixels is not None and slot is None:
            self.pixels.append(pixels)
            self.held += pixels.numel()

    def send(self, wire: socket.socket) -> None:
        """Sends all, and is empty again."""
        buffers: list[bytes | memoryview] = [message_of(self.batch)]
        buffers += [pixels.numpy().reshape(-1).data for pixels in self.pixels]
        send_all(wire, buffers)
        self.batch, self.pixels, self.held = PreparedBatch([], [], [], {}), [], 0


def run_worker(wire: socket.socket) -> None:
    """Prepares what is ordered until the parent closes its end, ends this process, or dies.

    The first message is an Intake, and how large a slot of the parent's ring is, where it has one.
    """
    settle()
    try:
        intake, slot_bytes = receive_message(wire)
        page, reads = shared_page(wire), ReadAhead()
        outbox = Outbox(None if slot_bytes is None else shared_slots(wire, slot_bytes))
        threading.Thread(target=receive, args=(wire, intake, reads), daemon=True).start()
        work(wire, intake.recipe, reads, page, outbox)
    except (ConnectionError, EOFError):
        os._exit(0)  # the parent has gone
    except Exception as error:
        with suppress(ConnectionError):
            send_all(wire, [message_of(Broken(portable(error)))])


def shared_page(wire: socket.socket) -> Page:
    """A page that the parent has too."""
    descriptor = os.memfd_create("latentcli-worker")
    try:
        os.ftruncate(descriptor, mmap.PAGESIZE)
        socket.send_fds(wire, [b"\0"], [descriptor])
        return Page(descriptor)
    finally:
        os.close(descriptor)


def shared_slots(wire: socket.socket, slot_bytes: int) -> Slots:
    """The ring that the parent shares; EOFError where it has gone."""
    _, descriptors, _, _ = socket.recv_fds(wire, 1, 1)
    if not descriptors:
        raise EOFError
    try:
        return Slots(descriptors[0], slot_bytes)
    finally:
        os.close(descriptors[0])


def work(wire: socket.socket, recipe: Recipe, reads: ReadAhead, page: Page, outbox: Outbox) -> None:
    """Never returns."""
    begun = 0
    while True:
        begun += 1
        page.write(begun, "read")
        sample, slot, last = reads.take()

        def entering(stage: str, begun: int = begun) -> None:
            page.write(begun, stage)

        outbox.add(*prepare_sample(sample, recipe, outbox.batch.seconds, entering), slot)
        if last or outbox.held >= MESSAGE_BYTES:
            outbox.batch.seconds["read"] = reads.seconds()
            outbox.send(wire)


def receive(wire: socket.socket, intake: Intake, reads: ReadAhead) -> None:
    """Takes orders in; ends the process at once when there is nobody left to order."""
    while True:
        try:
            order = receive_message(wire)
        except (EOFError, OSError):
            os._exit(0)
        try:
            samples = order.samples if order.samples is not None else rows_of(intake, order)
            reads.add(samples, order.slots)
        except Exception as error:
            reads.fail(error)


def rows_of(intake: Intake, order: Order) -> list[InputRow]:
    """The rows of the frozen list that are ordered."""
    first, last = order.indices[0], order.indices[-1]
    rows = intake.inputs.rows(order.unit, first, last - first + 1)
    return [rows[index - first] for index in order.indices]


def settle() -> None:
    """One thread of torch, and no library's words between the display's lines."""
    torch.set_num_threads(1)
    reuse_heap()
    warnings.simplefilter("ignore")


def portable(error: Exception) -> Exception:
    """The error itself where it can be sent, or else one that tells of it."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError("".join(traceback.format_exception(error)))
    return error
