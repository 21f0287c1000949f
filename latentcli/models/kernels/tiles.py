"""Orders the tiles of a product so that programs that run at one time share what they read."""

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
