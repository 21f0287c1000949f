"""Makes a tile of a product of rows and weights: what the kernels of products begin with.

Tiles do not go from one image into the next. Programs that run at one time share what they read.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def tile_of(programs, outputs: tl.constexpr, block_out: tl.constexpr, group: tl.constexpr):
    """(Tile of rows, tile of outputs) of this program: `group` tiles of rows go side by side."""
    across: tl.constexpr = (outputs + block_out - 1) // block_out
    program = tl.program_id(0)
    first = program // (group * across) * group
    size = tl.minimum(programs // across - first, group)
    place = program % (group * across)
    return first + place % size, place // size


@triton.jit
def product_tile(
    rows,
    factors,
    weight,
    tokens,
    inputs: tl.constexpr,
    outputs: tl.constexpr,
    block_rows: tl.constexpr,
    block_out: tl.constexpr,
    block_in: tl.constexpr,
    group: tl.constexpr,
    scaled: tl.constexpr,
):
    """This program's tile of rows W^T, of rows * factors where `scaled`, and where it lies.

    (Tile of rows, image, rows in the image, the same in all images, first channel, sums of the
    first half of the channels, of the second): in halves, as the sums of a large tile leave few
    registers.
    """
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
    whole: tl.constexpr = inputs % block_in == 0
    for start in range(0, inputs, block_in):
        if whole:
            left, right = tl.load(place), tl.load(tap)
        else:
            left = tl.load(place, mask=part[None, :] < inputs - start, other=0.0)
            right = tl.load(tap, mask=part[:, None] < inputs - start, other=0.0)
        if scaled:
            if whole:
                times = tl.load(factor)
            else:
                times = tl.load(factor, mask=part < inputs - start, other=0.0)
            left = (left.to(tl.float32) * times[None, :]).to(left.dtype)
        total = tl.dot(left, right, total, input_precision="ieee")
        place += block_in
        tap += block_in
        factor += block_in
    half: tl.constexpr = block_out // 2
    first, second = tl.split(tl.permute(tl.reshape(total, (block_rows, 2, half)), (0, 2, 1)))
    return row_tile, image, row, line, out_tile * block_out, first, second
