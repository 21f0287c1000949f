"""Puts the latents of a batch into one piece of memory as they are read, to spare copies."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class BatchMemory:
    """Room for `count` tensors of one size and dtype."""

    def __init__(self, count: int, dtype: torch.dtype | None) -> None:
        """`dtype` is what tensors become; None keeps that of the first one."""
        self._count, self._dtype = count, dtype
        self._rows: tuple[Tensor, ...] = ()
        self._used = 0

    def put(self, values: Tensor) -> Tensor:
        """A copy of a tensor, in the next place where it fits there."""
        dtype = self._dtype or values.dtype
        if not self._rows and self._count > 1:
            self._rows = torch.empty((self._count, *values.shape), dtype=dtype).unbind()
        if self._used < len(self._rows):
            row = self._rows[self._used]
            if row.shape == values.shape and row.dtype == dtype:
                self._used += 1
                return row.copy_(values)
        return values.to(dtype, copy=True)


def whole(values: Sequence[Tensor]) -> Tensor | None:
    """The memory of which these tensors are all rows, in their order; None where they are none."""
    base = values[0]._base
    if base is None or base.shape != (len(values), *values[0].shape) or not base.is_contiguous():
        return None
    start, step = base.data_ptr(), base.stride(0) * base.element_size()
    rows = all(
        value._base is base and value.data_ptr() == start + step * number
        for number, value in enumerate(values)
    )
    return base if rows else None
