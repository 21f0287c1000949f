"""Tensors in, piece by piece; one long tensor that lies in a file, ready to be copied, out.

A clip's latents are as long as the clip. They wait for their shard on the disk, so that memory
does not grow with the length.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from latentcli.core.errors import StoreError
from latentcli.shards.layout import SHARDS
from latentcli.shards.write import TEMPORARY, tensor_bytes, write_error

if TYPE_CHECKING:
    import torch
    from torch import Tensor

COPIED = 4 * 2**20
"""Bytes that are in memory at once while a spooled tensor is copied."""


@dataclass(frozen=True, slots=True)
class Spooled:
    """A tensor in a file of its own, as the writer of shards takes it."""

    path: Path
    dtype: torch.dtype
    shape: tuple[int, ...]

    def element_size(self) -> int:
        """Bytes of one value."""
        return self.dtype.itemsize

    def pieces(self) -> Iterator[bytes]:
        """The tensor's bytes, in order."""
        try:
            with self.path.open("rb") as file:
                while piece := file.read(COPIED):
                    yield piece
        except OSError as error:
            raise StoreError(f"{self.path} cannot be read: {error.strerror}.") from error

    def drop(self) -> None:
        """Deletes the file."""
        self.path.unlink(missing_ok=True)


class Spool:
    """Collects tensors [n, ...] of one dtype and one shape but for n.

    The file has a temporary name in the store's folder of shards: one that a killed job leaves
    behind is cleared away by the next. StoreError where the disk refuses.
    """

    def __init__(self, store: Path, name: str) -> None:
        self.path = store / SHARDS / f"{TEMPORARY}{os.getpid()}-{name}"
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
        try:
            with self.path.open("ab") as file:
                file.write(tensor_bytes(rows))
        except OSError as error:
            raise write_error(self.path, error) from error
        self._count += len(rows)

    def close(self) -> Spooled:
        """The whole tensor; ValueError where nothing was added."""
        if self._dtype is None or self._shape is None:
            raise ValueError(f"{self.path} holds nothing")
        return Spooled(self.path, self._dtype, (self._count, *self._shape))

    def drop(self) -> None:
        """Gives up: deletes the file."""
        self.path.unlink(missing_ok=True)
