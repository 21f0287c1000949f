"""Groups items of equal tensor shape into batches, in order.

Which items share a batch depends on their order and shapes alone, never on timing or workers, so a
shard's bytes are the same every time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import TypeVar

import torch
from torch import Tensor

MAX_PENDING_BYTES = 256 * 2**20
"""What waits for company before the oldest group goes as it is."""

T = TypeVar("T")


def full_batch(elements: int, batch_size: int, most_elements: int) -> int:
    """Items of a full batch of `batches`, each of so many elements."""
    return max(1, min(batch_size, most_elements // elements))


def batches(
    items: Iterable[T],
    tensor_of: Callable[[T], Tensor],
    batch_size: int,
    most_elements: int | None = None,
    max_pending_bytes: int = MAX_PENDING_BYTES,
) -> Iterator[list[T]]:
    """Full batches as soon as there is one, the rest at the end, oldest group first.

    A batch has `batch_size` items, or fewer of a shape of which so many would have more than
    `most_elements` elements, but never less than one.
    Groups of different shapes wait side by side; above `max_pending_bytes` the oldest is flushed.
    """

    @cache
    def full_size(shape: torch.Size) -> int:
        if most_elements is None:
            return batch_size
        return full_batch(shape.numel(), batch_size, most_elements)

    groups: dict[torch.Size, list[T]] = {}
    pending = 0
    for item in items:
        tensor = tensor_of(item)
        shape = tensor.shape
        group = groups.setdefault(shape, [])
        group.append(item)
        pending += tensor.nbytes
        ready = shape if len(group) >= full_size(shape) else None
        while ready is not None or pending > max_pending_bytes:
            group = groups.pop(next(iter(groups)) if ready is None else ready)
            pending -= len(group) * tensor_of(group[0]).nbytes
            ready = None
            yield group
    yield from groups.values()
