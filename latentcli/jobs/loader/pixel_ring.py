"""Shares memory for pictures with loader processes, which write them where batches are read.

A ring of slots, each as large as a picture. A task gets slots one behind the other, and the process
that prepares its pictures writes them there. So pictures that came in a row are a batch as they
lie: nothing is sent, stacked, or copied into pinned memory. What gets no slot, because none is free
or it is too large for one, is sent as it would be without a ring; nobody waits for a slot.

A slot is its process's from the order to the answer, then that of who takes the chunk, until a
device has copied from it. Where a process died, the one in its place gets its slots; where it could
not be killed, they are not used again.
"""

from __future__ import annotations

import math
import mmap
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from latentcli.images.preprocess import PreprocessSpec
from latentcli.jobs.loader.prepare import picture_bytes, task_size

RING_BYTES = 512 * 2**20
"""Memory of a ring at most."""
AHEAD = 32
"""Inputs per worker that may be ahead of who takes the chunks."""
BATCHES = 8
"""Batches that a ring has room for, beside what is ahead: one is being filled, one is at the model,
and others wait for a device that works beside the host."""


class Slots:
    """Memory that several processes have, cut into slots of one size."""

    def __init__(self, descriptor: int, slot_bytes: int) -> None:
        """All of an open file."""
        self.slot_bytes = slot_bytes
        self.memory = torch.frombuffer(mmap.mmap(descriptor, 0), dtype=torch.uint8)
        """uint8 [slots * slot_bytes]."""

    def at(self, slot: int, shape: Sequence[int]) -> Tensor:
        """uint8 of this shape, in a slot."""
        begin = slot * self.slot_bytes
        return self.memory[begin : begin + math.prod(shape)].view(*shape)

    def put(self, slot: int, pixels: Tensor) -> bool:
        """Writes a picture, uint8 [3, H, W], into a slot; False where it is too large."""
        fits = pixels.numel() <= self.slot_bytes
        if fits:
            self.at(slot, pixels.shape).copy_(pixels)
        return fits


class Ring(Slots):
    """Hands out its slots, and takes them back; any thread may call it."""

    def __init__(self, slots: int, slot_bytes: int, ahead: int, batch_size: int = 1) -> None:
        """As `RingSize` says; OSError where the system has no such memory."""
        self.ahead, self._batch_size = ahead, batch_size
        self.descriptor = os.memfd_create("latentcli-pixels")
        try:
            os.ftruncate(self.descriptor, slots * slot_bytes)
            super().__init__(self.descriptor, slot_bytes)
        except OSError:
            os.close(self.descriptor)
            raise
        self._lock = threading.Lock()
        self._in_use = bytearray(slots)
        self._next = 0
        self._begin = self.memory.data_ptr()
        self._read: deque[tuple[Callable[[], bool], list[int]]] = deque()
        """Slots that a device may still copy from, and whether that is over."""
        self._filled: dict[tuple[int, ...], tuple[Tensor, ...]] = {}
        """By shape: a picture in each slot, for the shapes that fill one."""

    @property
    def free(self) -> int:
        """Slots that nobody uses."""
        with self._lock:
            self._take_back()
            return self._in_use.count(0)

    def take(self, count: int, place: int = 0) -> int | None:
        """The first of `count` slots one behind the other, or None where no so many are free.

        They are the next that are: a picture that waits long for company keeps its slot alone.
        `place` is that of the first picture in its unit: where a batch begins, they are the first
        behind which all of it has room, so that memory which was never used stays unused.
        """
        with self._lock:
            self._take_back()
            if not place % self._batch_size:
                self._next = max(self._in_use.find(bytes(self._batch_size)), 0)
            free = bytes(count)
            begin = self._in_use.find(free, self._next)
            if begin < 0 and (begin := self._in_use.find(free)) < 0:
                return None
            self._next = begin + count
            self._in_use[begin : self._next] = b"\1" * count
            return begin

    def give_back(self, slots: Iterable[int]) -> None:
        """Slots that nobody reads or writes any more."""
        with self._lock:
            for slot in slots:
                self._in_use[slot] = 0

    def row(
        self, slots: Sequence[int | None], shapes: Sequence[tuple[int, ...] | None]
    ) -> Sequence[Tensor]:
        """The pictures in these slots where they fill them one behind the other; else nothing."""
        first, shape = slots[0], shapes[0]
        if first is None or shape is None or math.prod(shape) != self.slot_bytes:
            return ()
        if shapes.count(shape) != len(slots) or [*slots] != [*range(first, first + len(slots))]:
            return ()
        return self._filled_with(shape)[first : first + len(slots)]

    def batch(self, pictures: Sequence[Tensor]) -> Tensor | None:
        """Pictures of one shape as [N, 3, H, W], if they lie one behind the other; else None."""
        first, shape = self._slot_of(pictures[0]), pictures[0].shape
        if first is None or math.prod(shape) != self.slot_bytes:
            return None
        begin = pictures[0].data_ptr()
        for place, picture in enumerate(pictures):
            if picture.data_ptr() != begin + place * self.slot_bytes:
                return None
        return self.at(first, (len(pictures), *shape))

    def release(self, pictures: Iterable[Tensor], read: Callable[[], bool]) -> None:
        """Nobody looks at these pictures once `read` says that the device has read them.

        Those that lie elsewhere are none of its business.
        """
        slots = [slot for slot in map(self._slot_of, pictures) if slot is not None]
        if read():
            self.give_back(slots)
        elif slots:
            with self._lock:
                self._read.append((read, slots))

    def close(self) -> None:
        """Lets go of the file; the memory stays as long as a tensor is in it."""
        os.close(self.descriptor)

    def _filled_with(self, shape: tuple[int, ...]) -> tuple[Tensor, ...]:
        # Made once: a tensor takes longer to make than all else that a picture needs here.
        if shape not in self._filled:
            self._filled[shape] = self.at(0, (len(self._in_use), *shape)).unbind()
        return self._filled[shape]

    def _slot_of(self, picture: Tensor) -> int | None:
        place = picture.data_ptr() - self._begin
        return place // self.slot_bytes if 0 <= place < self.memory.nbytes else None

    def _take_back(self) -> None:
        """What a device has read, in the order in which it was given."""
        while self._read and self._read[0][0]():
            for slot in self._read.popleft()[1]:
                self._in_use[slot] = 0


class RingSize(NamedTuple):
    """What a ring is like."""

    slots: int
    slot_bytes: int
    ahead: int
    """Inputs that may be ahead of who takes the chunks: for so many there are slots."""
    batch_size: int = 1
    """Pictures of a batch, which lie one behind the other if they can."""


def ring_size(spec: PreprocessSpec, workers: int, batch_size: int) -> RingSize | None:
    """The ring for batches of so many pictures; None where no such ring is worth having.

    That is where pictures may be of any size, or so large that RING_BYTES hold too few of them.
    """
    size = picture_bytes(spec)
    if workers == 0 or size is None:
        return None
    held = BATCHES * batch_size
    slots = min(held + AHEAD * workers, RING_BYTES // size)
    # Each worker has a task in hand, and the next one at its door.
    if slots - held < 2 * workers * task_size(spec):
        return None
    return RingSize(slots, size, slots - held, batch_size)


@contextmanager
def open_ring(
    size: RingSize | None, pin: Callable[[Tensor], Callable[[], None]]
) -> Iterator[Ring | None]:
    """A ring, in memory that `pin` makes a device copy from by itself; what that gives undoes it.

    None without a size, and where the system has no such memory.
    """
    try:
        ring = None if size is None else Ring(*size)
    except OSError:
        ring = None
    if ring is None:
        yield None
        return
    unpin = pin(ring.memory)
    try:
        yield ring
    finally:
        unpin()
        ring.close()
