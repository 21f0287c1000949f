"""Copies encoded batches off a device through pinned memory, while the device computes the next."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from latentcli.jobs.inference.accelerator import Accelerator
from latentcli.jobs.inference.split_on_oom import Parts

ALIGNED = 64
"""What the first byte of each tensor in a slab is a multiple of."""


class CopyBack:
    """Has a slab of pinned memory for each batch that is under way, and uses them again."""

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self._free: deque[Tensor] = deque()

    def begin(self, parts: Mapping[str, Tensor]) -> Callable[[], Parts]:
        """Begins to copy tensors to the host, all of them made by this thread's work so far.

        What it gives waits until they are there and gives them in memory of their own; it takes no
        memory of the device, is called once, and may be in another thread.
        """
        if not self._accelerator.gpu:
            return lambda: dict(parts)
        slab = self._slab(sum(map(_room, parts.values())))
        there: Parts = {}
        end = 0
        for name, part in parts.items():
            begin, end = end, end + _room(part)
            there[name] = slab[begin : begin + part.nbytes].view(part.dtype).view(part.shape)
        wait = self._accelerator.start_copying([(parts[name], there[name]) for name in parts])
        kept = dict(parts)

        def finish() -> Parts:
            wait()
            kept.clear()
            own = {name: tensor.clone() for name, tensor in there.items()}
            self._free.append(slab)
            return own

        return finish

    def _slab(self, size: int) -> Tensor:
        """Pinned memory of at least so many bytes that no batch is in."""
        slab = self._free.pop() if self._free else None
        if slab is None or len(slab) < size:
            slab = self._accelerator.pinned(torch.empty(size, dtype=torch.uint8))
        return slab


def _room(part: Tensor) -> int:
    """Bytes that a tensor takes up in a slab."""
    return -(-part.nbytes // ALIGNED) * ALIGNED
