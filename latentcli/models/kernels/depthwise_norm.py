"""Convolves each channel by itself, adds a bias, and brings pixels to unit RMS, in one kernel.

A program makes a few output pixels of a row, with all their channels, as the norm needs those. Each
input pixel is loaded once for all of the outputs that it belongs to: the work is bound by
multiplications, not by memory.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def depthwise_norm_kernel(
    x,
    taps,
    bias,
    modulation,
    out,
    height,
    width,
    modulation_stride,
    channels: tl.constexpr,
    side: tl.constexpr,
    eps: tl.constexpr,
    block: tl.constexpr,
    tile: tl.constexpr,
    scaled: tl.constexpr,
):
    """A tile of out [N, h, w, D] = norm(conv(x) + bias) * (1 + modulation[:, :D])."""
    across = tl.cdiv(width, tile)
    program = tl.program_id(0)
    image = program // (across * height)
    top = program % (across * height) // across
    left = program % across * tile
    channel = tl.arange(0, block)
    known = channel < channels
    pixels = image.to(tl.int64) * height * width

    begin = tl.load(bias + channel, mask=known, other=0.0).to(tl.float32)
    sums = ()
    for _ in tl.static_range(tile):
        sums = sums + (begin,)
    for ky in range(side):
        y = top + ky - side // 2
        weights = ()
        for kx in tl.static_range(side):
            tap = taps + (ky * side + kx) * channels + channel
            weights = weights + (tl.load(tap, mask=known, other=0.0).to(tl.float32),)
        for dx in tl.static_range(tile + side - 1):
            seen = left + dx - side // 2
            inside = (y >= 0) & (y < height) & (seen >= 0) & (seen < width)
            place = x + (pixels + y * width + seen) * channels + channel
            value = tl.load(place, mask=known & inside, other=0.0).to(tl.float32)
            added = ()
            for column in tl.static_range(tile):
                if dx >= column and dx < column + side:
                    added = added + (sums[column] + value * weights[dx - column],)
                else:
                    added = added + (sums[column],)
            sums = added

    scale = tl.full((block,), 1.0, tl.float32)
    if scaled:
        place = modulation + image * modulation_stride + channel
        scale += tl.load(place, mask=known, other=0.0).to(tl.float32)
    for column in tl.static_range(tile):
        total = sums[column]
        normed = total * tl.rsqrt(tl.sum(total * total, 0) / channels + eps) * scale
        place = out + (pixels + top * width + left + column) * channels + channel
        inside = left + column < width
        tl.store(place, normed.to(out.dtype.element_ty), mask=known & inside)
