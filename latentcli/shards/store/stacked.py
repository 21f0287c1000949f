"""Makes room for tensors of many samples, which are copied there straight out of shards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from latentcli.core.errors import StoreError
from latentcli.shards.store.shard_file import ShardFile
from latentcli.shards.tensors.dtypes import dtypes
from latentcli.shards.tensors.file import Entry

if TYPE_CHECKING:
    from torch import Tensor


class Stack:
    """Room for one tensor of each of `count` samples, all of one dtype and shape."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._values: Tensor | None = None
        self._like: Entry | None = None

    @property
    def values(self) -> Tensor:
        """[count, ...], in the stored dtype; to be taken once all were copied."""
        if self._values is None:
            raise ValueError("the stack has no tensors")
        return self._values

    def room(self, place: int, file: ShardFile, name: str) -> tuple[Entry, memoryview]:
        """A tensor of a file, and the memory of its place, to be copied into it.

        StoreError where there is none of this name, or of another dtype or shape than the others.
        """
        entry = file.entries.get(name)
        if entry is None:
            raise StoreError(f"{file.path} has no tensor {name!r}.")
        like = self._like or self._begin(entry)
        if entry.shape != like.shape or entry.dtype != like.dtype:
            raise StoreError(
                f"{file.path} is damaged: {name!r} is {entry.dtype} {list(entry.shape)}, where"
                f" another sample of its size has {like.dtype} {list(like.shape)}."
            )
        size = self._size
        return entry, self._memory[place * size : (place + 1) * size]

    def _begin(self, entry: Entry) -> Entry:
        import torch

        values = torch.empty((self._count, *entry.shape), dtype=dtypes()[entry.dtype])
        # Bytes are copied without torch, for which each tensor would have to be made first.
        self._memory = values.view(-1).view(torch.uint8).numpy().data
        self._size = entry.end - entry.begin
        self._values, self._like = values, entry
        return entry


def by_unit(units: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
    """Each unit with the places where it stands, so that a shard is looked up once."""
    found: dict[int, list[int]] = {}
    for place, unit in enumerate(units):
        found.setdefault(unit, []).append(place)
    return iter(found.items())
