"""Keeps tensors and members on the disk until their shard is written.

A clip's latents are as long as the clip, and a tar holds more samples than fit into memory.
"""

from __future__ import annotations

import os
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from latentcli.core.errors import StoreError
from latentcli.core.types import Member
from latentcli.shards.layout import SHARDS
from latentcli.shards.storage.atomic_write import TEMPORARY, Bytes, writing
from latentcli.shards.storage.paths import AnyPath, reading
from latentcli.shards.tensors.packed import (
    Block,
    PackedMember,
    PackedTensor,
    Stretch,
    WholeFile,
    rows_of,
)
from latentcli.shards.tensors.write import tensor_bytes

if TYPE_CHECKING:
    import torch
    from torch import Tensor

HELD = 256 * 2**20
"""Bytes of one unit that stay in memory; what comes after them goes to the disk."""


def temporary_file(store: AnyPath | None, name: str) -> Path:
    """Where this process may put a file until its unit is written, on this machine in any case.

    It is in the store's folder of shards, or in the system's own where the store is elsewhere.
    """
    folder = store / SHARDS if isinstance(store, Path) else Path(tempfile.gettempdir())
    return folder / f"{TEMPORARY}{os.getpid()}-{name}"


class Spool:
    """Collects tensors [n, ...] of one dtype and one shape but for n.

    In the store's folder of shards, a file that a killed job leaves behind is cleared away by the
    next. StoreError where the disk refuses.
    """

    def __init__(self, store: AnyPath | None, name: str) -> None:
        self.path = temporary_file(store, name)
        self._shape: tuple[int, ...] | None = None
        self._dtype: torch.dtype | None = None
        self._count = 0
        self.path.unlink(missing_ok=True)

    def add(self, rows: Tensor) -> None:
        """Appends rows [n, ...]; ValueError where they are of another shape or dtype."""
        kind = (rows.dtype, tuple(rows.shape[1:]))
        if self._dtype is None or self._shape is None:
            self._dtype, self._shape = kind
        if kind != (self._dtype, self._shape):
            raise ValueError(f"rows are {kind}, those before were {(self._dtype, self._shape)}")
        with writing(self.path), self.path.open("ab") as file:
            file.write(tensor_bytes(rows))
        self._count += len(rows)

    def close(self) -> PackedTensor:
        """The whole tensor; ValueError where nothing was added."""
        if self._dtype is None or self._shape is None:
            raise ValueError(f"{self.path} holds nothing")
        return PackedTensor(self._dtype, (self._count, *self._shape), WholeFile(self.path))

    def drop(self) -> None:
        """Gives up: deletes the file."""
        self.path.unlink(missing_ok=True)


class Spilling:
    """Keeps what a unit has got so far: up to `limit` bytes as they are, all else in one file.

    The file has no name, so that nothing is left of it however the job ends. What was given out
    is good until `drop`. Several threads may use one. StoreError where the disk refuses.
    """

    def __init__(self, store: AnyPath | None, name: str, limit: int = HELD) -> None:
        self.path = temporary_file(store, f"{name}-spilled")
        self._lock = threading.Lock()
        self._room = limit
        self._handle: int | None = None
        self._end = 0

    def rows(self, batch: Tensor) -> list[PackedTensor]:
        """Takes a batch [N, ...] on the CPU, and gives what stands for each of its N tensors.

        One that fits is kept as it is: nothing may be written into it any more.
        """
        data = memoryview(tensor_bytes(batch))
        fits = self._fits(data.nbytes)
        whole = Stretch(Block(data), 0, data.nbytes) if fits else self._append(data)
        return rows_of(batch.dtype, batch.shape, whole)

    def member(self, member: Member) -> Member | PackedMember:
        """Takes a member, and gives it back or what stands for it."""
        if self._fits(len(member.data)):
            return member
        return PackedMember(member.field, self._append(member.data))

    def read(self, offset: int, size: int) -> bytes:
        """Bytes of the file; StoreError where they are not there."""
        if self._handle is None:
            raise StoreError(f"{self.path} was dropped.")
        with reading(self.path):
            data = os.pread(self._handle, size, offset)
        if len(data) != size:
            raise StoreError(f"{self.path} ends too early.")
        return data

    def drop(self) -> None:
        """Gives memory and disk back."""
        with self._lock:
            handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)

    def _fits(self, size: int) -> bool:
        # Small things after a large one may still fit: the order in the shard is not at stake.
        with self._lock:
            fits = size <= self._room
            self._room -= size if fits else 0
        return fits

    def _append(self, data: Bytes) -> Stretch:
        view = memoryview(data)
        with self._lock:
            where = Stretch(self, self._end, view.nbytes)
            with writing(self.path):
                if self._handle is None:
                    self._handle = _nameless(self.path)
                while view.nbytes:
                    written = os.pwrite(self._handle, view, self._end)
                    self._end += written
                    view = view[written:]
        return where


def _nameless(path: Path) -> int:
    """Handle of a new file that takes up room until it is closed, and is in no folder."""
    path.unlink(missing_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    path.unlink()
    return handle
