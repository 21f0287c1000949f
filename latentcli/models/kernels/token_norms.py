"""Adds a normalised update to tokens and normalises the sum for what follows, in one kernel."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def token_norms_kernel(
    tokens,
    update,
    gain,
    total,
    normed,
    dim: tl.constexpr,
    eps: tl.constexpr,
    block: tl.constexpr,
    updated: tl.constexpr,
):
    """A row of total = tokens + norm(update) * gain, and of normed = norm(total)."""
    channel = tl.arange(0, block)
    known = channel < dim
    place = tl.program_id(0).to(tl.int64) * dim + channel
    row = tl.load(tokens + place, mask=known, other=0.0).to(tl.float32)
    if updated:
        added = tl.load(update + place, mask=known, other=0.0).to(tl.float32)
        weight = tl.load(gain + channel, mask=known, other=0.0).to(tl.float32)
        row += added * tl.rsqrt(tl.sum(added * added, 0) / dim + eps) * weight
        rounded = row.to(total.dtype.element_ty)
        tl.store(total + place, rounded, mask=known)
        row = rounded.to(tl.float32)
    out = row * tl.rsqrt(tl.sum(row * row, 0) / dim + eps)
    tl.store(normed + place, out.to(normed.dtype.element_ty), mask=known)
