"""Finds the memory that the tensors of a batch are rows of, which spares copying them together."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


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
