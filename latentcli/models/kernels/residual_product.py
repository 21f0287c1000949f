"""Multiplies scaled rows by weights, and adds bias, gate and residual, in one kernel."""

from __future__ import annotations

import triton
import triton.language as tl

from latentcli.models.kernels.product_tile import product_tile


@triton.jit
def residual_product_kernel(
    rows,
    factors,
    weight,
    bias,
    residual,
    gate,
    out,
    tokens,
    gate_stride,
    inputs: tl.constexpr,
    outputs: tl.constexpr,
    block_rows: tl.constexpr,
    block_out: tl.constexpr,
    block_in: tl.constexpr,
    group: tl.constexpr,
    gated: tl.constexpr,
):
    """A tile of out [N, T, O] = residual + gate * ((rows * factors) W^T + bias)."""
    _, image, row, line, begin, first, second = product_tile(
        rows, factors, weight, tokens, inputs, outputs, block_rows, block_out, block_in, group, True
    )
    half: tl.constexpr = block_out // 2
    for side in tl.static_range(2):
        channel = begin + side * half + tl.arange(0, half)
        known = channel < outputs
        value = first if side == 0 else second
        value += tl.load(bias + channel, mask=known, other=0.0).to(tl.float32)[None, :]
        if gated:
            place = gate + image * gate_stride + channel
            value *= tl.load(place, mask=known, other=0.0).to(tl.float32)[None, :]
        inside = (row < tokens)[:, None] & known[None, :]
        there = line[:, None] * outputs + channel[None, :]
        value += tl.load(residual + there, mask=inside, other=0.0).to(tl.float32)
        tl.store(out + there, value.to(out.dtype.element_ty), mask=inside)
