"""Multiplies rows by weights, and takes GELU and sums of squares of what comes, in one kernel.

A program makes a tile of the product. Tiles do not go from one image into the next, and each leaves
a sum of its own for every channel, so nothing is added in an order that may differ between runs.
"""

from __future__ import annotations

import triton
import triton.language as tl

from latentcli.models.kernels.tiles import tile_of


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
    row_tile, out_tile = tile_of(tl.num_programs(0), outputs, block_out, group)
    tiles = tl.cdiv(tokens, block_rows)
    image = row_tile // tiles
    row = row_tile % tiles * block_rows + tl.arange(0, block_rows)
    known_row = row < tokens
    channel = out_tile * block_out + tl.arange(0, block_out)
    part = tl.arange(0, block_in)
    # What lies outside is read from the edge and not written.
    line = image.to(tl.int64) * tokens + tl.minimum(row, tokens - 1)
    place = rows + line[:, None] * inputs + part[None, :]
    tap = weight + tl.minimum(channel, outputs - 1)[None, :] * inputs + part[:, None]
    total = tl.zeros((block_rows, block_out), tl.float32)
    for start in range(0, inputs, block_in):
        if inputs % block_in == 0:
            left, right = tl.load(place), tl.load(tap)
        else:
            left = tl.load(place, mask=part[None, :] < inputs - start, other=0.0)
            right = tl.load(tap, mask=part[:, None] < inputs - start, other=0.0)
        total = tl.dot(left, right, total, input_precision="ieee")
        place += block_in
        tap += block_in
    # In halves, as the sums of a large tile leave few registers.
    half: tl.constexpr = block_out // 2
    first, second = tl.split(tl.permute(tl.reshape(total, (block_rows, 2, half)), (0, 2, 1)))
    for side in tl.static_range(2):
        channel = out_tile * block_out + side * half + tl.arange(0, half)
        known = channel < outputs
        value = first if side == 0 else second
        if biased:
            value += tl.load(bias + channel, mask=known, other=0.0).to(tl.float32)[None, :]
        value = 0.5 * value * (1.0 + tl.erf(value * 0.7071067811865476))
        rounded = value.to(out.dtype.element_ty)
        inside = known_row[:, None] & known[None, :]
        tl.store(out + line[:, None] * outputs + channel[None, :], rounded, mask=inside)
        if squared:
            seen = tl.where(inside, rounded.to(tl.float32), 0.0)
            place = squares + row_tile.to(tl.int64) * outputs + channel
            tl.store(place, tl.sum(seen * seen, 0), mask=known)
