"""Defines tensors and members whose bytes lie in a block of memory or on the disk, with others'."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from latentcli.shards.storage.atomic_write import Bytes
from latentcli.shards.storage.paths import AnyPath, read_part, reading

if TYPE_CHECKING:
    import torch

Other = TypeVar("Other")

COPIED = 4 * 2**20
"""Bytes that are in memory at once while what lies on the disk is copied."""


class Readable(Protocol):
    """Something that has bytes by their place."""

    def read(self, offset: int, size: int) -> Bytes:
        """Bytes of it; StoreError where they are not there."""


@dataclass(frozen=True, slots=True)
class Block:
    """Memory that many tensors share."""

    data: memoryview
    """Of single bytes."""

    def read(self, offset: int, size: int) -> memoryview:
        """Bytes of it, not copied."""
        return self.data[offset : offset + size]


@dataclass(frozen=True, slots=True)
class Stretch:
    """Some bytes of a block, or of a spilling's file."""

    of: Readable
    offset: int
    size: int

    def pieces(self) -> Iterator[Bytes]:
        """The bytes, in order; StoreError where they cannot be had."""
        for begin in range(0, self.size, COPIED):
            yield self.of.read(self.offset + begin, min(COPIED, self.size - begin))


@dataclass(frozen=True, slots=True)
class WholeFile:
    """All bytes of a file."""

    path: Path

    def pieces(self) -> Iterator[bytes]:
        """The bytes, in order; StoreError where they cannot be had."""
        with reading(self.path), self.path.open("rb") as file:
            while piece := file.read(COPIED):
                yield piece


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
    """A tensor as the writers of shards take it: where its bytes are, and what they are."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    where: Stretch | WholeFile

    def element_size(self) -> int:
        """Bytes of one value."""
        return self.dtype.itemsize

    def pieces(self) -> Iterator[Bytes]:
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


def rows_of(dtype: torch.dtype, shape: Sequence[int], whole: Stretch) -> list[PackedTensor]:
    """The N tensors of a batch [N, ...] of this shape, which has these bytes."""
    count, *of = shape
    each, size = tuple(of), math.prod(of) * dtype.itemsize
    places = (Stretch(whole.of, whole.offset + i * size, size) for i in range(count))
    return [PackedTensor(dtype, each, place) for place in places]


def joined(places: Iterable[Stretch | Other]) -> Iterator[Stretch | Other]:
    """The same bytes, with stretches that lie and come one behind the other as one."""
    at: Stretch | None = None
    end = 0
    for place in places:
        stretch = place if isinstance(place, Stretch) else None
        if stretch and at and stretch.of is at.of and stretch.offset == end:
            end += stretch.size
            continue
        if at:
            yield Stretch(at.of, at.offset, end - at.offset)
        at = stretch
        if stretch:
            end = stretch.offset + stretch.size
        else:
            yield place
    if at:
        yield Stretch(at.of, at.offset, end - at.offset)
