"""Turns sums of squares into what global response normalisation multiplies a bottleneck by."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def grn_factors_kernel(
    squares,
    gamma,
    out,
    parts,
    channels: tl.constexpr,
    eps: tl.constexpr,
    block: tl.constexpr,
):
    """An image of out [N, C] = 1 + gamma * energy / (mean energy + eps), of squares [N, P, C]."""
    image = tl.program_id(0)
    channel = tl.arange(0, block)
    known = channel < channels
    place = squares + image.to(tl.int64) * parts * channels + channel
    total = tl.zeros((block,), tl.float32)
    for _ in range(parts):
        total += tl.load(place, mask=known, other=0.0)
        place += channels
    energy = tl.sqrt_rn(total)
    mean = tl.sum(energy, 0) / channels
    gain = tl.load(gamma + channel, mask=known, other=0.0)
    tl.store(out + image * channels + channel, 1.0 + gain * energy / (mean + eps), mask=known)
