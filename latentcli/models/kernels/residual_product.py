"""Multiplies scaled rows by weights, and adds bias, gate and residual, in one kernel."""

from __future__ import annotations

import triton
import triton.language as tl

from latentcli.models.kernels.tiles import tile_of


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
    row_tile, out_tile = tile_of(tl.num_programs(0), outputs, block_out, group)
    tiles = tl.cdiv(tokens, block_rows)
    image = row_tile // tiles
    row = row_tile % tiles * block_rows + tl.arange(0, block_rows)
    channel = out_tile * block_out + tl.arange(0, block_out)
    part = tl.arange(0, block_in)
    # What lies outside is read from the edge and not written.
    line = image.to(tl.int64) * tokens + tl.minimum(row, tokens - 1)
    place = rows + line[:, None] * inputs + part[None, :]
    tap = weight + tl.minimum(channel, outputs - 1)[None, :] * inputs + part[:, None]
    factor = factors + image * inputs + part
    total = tl.zeros((block_rows, block_out), tl.float32)
    for start in range(0, inputs, block_in):
        if inputs % block_in == 0:
            left, right, times = tl.load(place), tl.load(tap), tl.load(factor)
        else:
            left = tl.load(place, mask=part[None, :] < inputs - start, other=0.0)
            right = tl.load(tap, mask=part[:, None] < inputs - start, other=0.0)
            times = tl.load(factor, mask=part < inputs - start, other=0.0)
        scaled = (left.to(tl.float32) * times[None, :]).to(left.dtype)
        total = tl.dot(scaled, right, total, input_precision="ieee")
        place += block_in
        tap += block_in
        factor += block_in
    # In halves, as the sums of a large tile leave few registers.
    half: tl.constexpr = block_out // 2
    first, second = tl.split(tl.permute(tl.reshape(total, (block_rows, 2, half)), (0, 2, 1)))
    for side in tl.static_range(2):
        channel = out_tile * block_out + side * half + tl.arange(0, half)
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
