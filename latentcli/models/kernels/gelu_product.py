"""Multiplies rows by weights, and takes GELU and sums of squares of what comes, in one kernel.

A program makes a tile of the product, and leaves a sum of its own for every channel, so nothing is
added in an order that may differ between runs.
"""

from __future__ import annotations

import triton
import triton.language as tl

from latentcli.models.kernels.product_tile import product_tile


@triton.jit
def gelu_product_kernel(
    rows,
    weight,
    bias,
    out,
    squares,
    tokens,
    inputs: tl.constexpr,
    outputs: tl.constexpr,
    block_rows: tl.constexpr,
    block_out: tl.constexpr,
    block_in: tl.constexpr,
    group: tl.constexpr,
    biased: tl.constexpr,
    squared: tl.constexpr,
):
    """A tile of out [N, T, O] = gelu(rows W^T + bias), and of squares [N, T / block_rows, O]."""
    row_tile, _, row, line, begin, first, second = product_tile(
        rows, rows, weight, tokens, inputs, outputs, block_rows, block_out, block_in, group, False
    )
    half: tl.constexpr = block_out // 2
    for side in tl.static_range(2):
        channel = begin + side * half + tl.arange(0, half)
        known = channel < outputs
        value = first if side == 0 else second
        if biased:
            value += tl.load(bias + channel, mask=known, other=0.0).to(tl.float32)[None, :]
        value = 0.5 * value * (1.0 + tl.erf(value * 0.7071067811865476))
        rounded = value.to(out.dtype.element_ty)
        inside = (row < tokens)[:, None] & known[None, :]
        tl.store(out + line[:, None] * outputs + channel[None, :], rounded, mask=inside)
        if squared:
            seen = tl.where(inside, rounded.to(tl.float32), 0.0)
            place = squares + row_tile.to(tl.int64) * outputs + channel
            tl.store(place, tl.sum(seen * seen, 0), mask=known)
