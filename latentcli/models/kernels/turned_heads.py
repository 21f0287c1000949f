"""Normalises, weights and turns queries and keys as a product left them, in one kernel."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def turned_heads_kernel(
    qkv,
    weight,
    turns,
    out,
    rows,
    tokens,
    heads: tl.constexpr,
    dim: tl.constexpr,
    eps: tl.constexpr,
    block_rows: tl.constexpr,
):
    """Some heads of out [N, T, 2, heads, d]: unit RMS, times weight [2, d], turned by the token.

    `qkv` is [N, T, 3, heads, d], `turns` [T, d / 2, 2], cosine and sine. Rows are (N, T, 2, heads).
    """
    row = tl.program_id(0) * block_rows + tl.arange(0, block_rows)
    known = (row < rows)[:, None]
    part = tl.arange(0, dim)[None, :]
    token = row // (2 * heads)
    which = row % (2 * heads)  # the queries' heads, then the keys'
    source = (token.to(tl.int64) * (3 * heads) + which)[:, None] * dim + part
    head = tl.load(qkv + source, mask=known, other=0.0).to(tl.float32)
    norm = tl.rsqrt(tl.sum(head * head, 1) / dim + eps)
    gain = tl.load(weight + (which // heads)[:, None] * dim + part, mask=known, other=0.0)
    even, odd = tl.split(tl.reshape(head * norm[:, None] * gain, (block_rows, dim // 2, 2)))
    turn = tl.load(turns + (token % tokens)[:, None] * dim + part, mask=known, other=0.0)
    cos, sin = tl.split(tl.reshape(turn, (block_rows, dim // 2, 2)))
    pairs = tl.join(even * cos - odd * sin, odd * cos + even * sin)
    place = row.to(tl.int64)[:, None] * dim + part
    turned = tl.reshape(pairs, (block_rows, dim)).to(out.dtype.element_ty)
    tl.store(out + place, turned, mask=known)
