"""Keeps tensors and members on the disk until their shard is written.

A clip's latents are as long as the clip, and a tar holds more samples than fit into memory.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from latentcli.core.errors import StoreError
from latentcli.core.types import Member
from latentcli.shards.layout import SHARDS
from latentcli.shards.storage.atomic_write import TEMPORARY, Bytes, writing
from latentcli.shards.storage.paths import AnyPath, read_part, reading
from latentcli.shards.tensors.write import tensor_bytes

if TYPE_CHECKING:
    import torch
    from torch import Tensor

HELD = 256 * 2**20
"""Bytes of one unit that stay in memory; what comes after them goes to the disk."""

COPIED = 4 * 2**20
"""Bytes that are in memory at once while a spooled tensor is copied."""


def temporary_file(store: AnyPath | None, name: str) -> Path:
    """Where this process may put a file until its unit is written, on this machine in any case.

    It is in the store's folder of shards, or in the system's own where the store is elsewhere.
    """
    folder = store / SHARDS if isinstance(store, Path) else Path(tempfile.gettempdir())
    return folder / f"{TEMPORARY}{os.getpid()}-{name}"


@dataclass(frozen=True, slots=True)
class WholeFile:
    """All bytes of a file."""

    path: Path

    def pieces(self) -> Iterator[bytes]:
        """The bytes, in order; StoreError where they cannot be had."""
        with reading(self.path), self.path.open("rb") as file:
            while piece := file.read(COPIED):
                yield piece


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


@dataclass(frozen=True, slots=True)
class Stretch:
    """Some bytes of a spilling's file."""

    spilling: Spilling
    offset: int
    size: int

    def pieces(self) -> Iterator[bytes]:
        """The bytes, in order; StoreError where they cannot be had."""
        for begin in range(0, self.size, COPIED):
            count = min(COPIED, self.size - begin)
            yield self.spilling.read(self.offset + begin, count)


@dataclass(frozen=True, slots=True)
class FilePart:
    """Some bytes of a file, which may be a remote one."""

    path: AnyPath
    offset: int
    size: int

    def pieces(self) -> Iterator[Bytes]:
        """The bytes, in order; StoreError where they cannot be had."""
        for begin in range(0, self.size, COPIED):
            at = self.offset + begin
            yield memoryview(read_part(self.path, at, at + min(COPIED, self.size - begin)))


@dataclass(frozen=True, slots=True)
class PackedTensor:
    """A tensor on the disk, as the writers of shards take it."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    where: Stretch | WholeFile

    def element_size(self) -> int:
        """Bytes of one value."""
        return self.dtype.itemsize

    def pieces(self) -> Iterator[bytes]:
        """The tensor's bytes, in order."""
        return self.where.pieces()


@dataclass(frozen=True, slots=True)
class PackedMember:
    """A member of a sample whose bytes are on the disk."""

    field: str
    where: Stretch | FilePart

    @property
    def size(self) -> int:
        """Bytes of the member."""
        return self.where.size

    def pieces(self) -> Iterator[Bytes]:
        """The member's bytes, in order."""
        return self.where.pieces()


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

    def tensor(self, tensor: Tensor) -> Tensor | PackedTensor:
        """Takes a tensor of any dtype and shape, and gives it back or what stands for it."""
        if self._fits(tensor.numel() * tensor.element_size()):
            return tensor
        return PackedTensor(tensor.dtype, tuple(tensor.shape), self._append(tensor_bytes(tensor)))

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
