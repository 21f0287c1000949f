"""Launches each kernel on tensors of a GPU: its grid, its tiles, its constants.

Tiles are chosen from shapes and the kind of GPU alone, and nothing is tuned by timing: the same
tensors give the same bits on the same GPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
import triton
from torch import Tensor

from latentcli.models.fcdm_network import NORM_EPS
from latentcli.models.kernels.depthwise_norm import depthwise_norm_kernel
from latentcli.models.kernels.gelu_product import gelu_product_kernel
from latentcli.models.kernels.grn_factors import grn_factors_kernel
from latentcli.models.kernels.residual_product import residual_product_kernel
from latentcli.models.kernels.token_norms import token_norms_kernel
from latentcli.models.kernels.turned_heads import turned_heads_kernel

PIXELS = 8
"""Neighbouring outputs of the depthwise convolution in a program: its sums stay in registers."""
HEADS = 32
"""Heads of queries and keys in a program."""
BUSY = 128
"""Programs that keep a large GPU busy: where there are fewer, tiles are smaller."""


@dataclass(frozen=True)
class Launch:
    """One run of a kernel: all that decides which code is compiled, and what it works on."""

    kernel: Any
    grid: int
    arguments: Mapping[str, Tensor | int]
    constants: Mapping[str, int | float | bool]
    warps: int
    stages: int = 3

    def run(self) -> None:
        """Sends it to the GPU of its tensors, whichever one is this thread's own."""
        first = next(iter(self.arguments.values()))
        assert isinstance(first, Tensor)
        with torch.cuda.device(first.device) if first.is_cuda else nullcontext():
            self.kernel[(self.grid,)](
                **self.arguments, **self.constants, num_warps=self.warps, num_stages=self.stages
            )


@dataclass(frozen=True)
class Tile:
    """How much of a product a program makes, and by how much of the sum at a time."""

    rows: int
    outputs: int
    inputs: int
    warps: int
    stages: int


WIDE = Tile(rows=128, outputs=256, inputs=64, warps=8, stages=3)
"""For GPUs with tensor cores that read shared memory, and with 200 KiB of it."""
SQUARE = Tile(rows=128, outputs=128, inputs=64, warps=8, stages=3)
"""For every GPU: 96 KiB of shared memory."""
SMALL = Tile(rows=64, outputs=64, inputs=64, warps=8, stages=3)
"""Where there is little to do."""
GROUP = 8
"""Tiles of rows that run side by side, so that they share weights."""


def depthwise_norm(x: Tensor, taps: Tensor, bias: Tensor, modulation: Tensor | None) -> Launch:
    """Of `reference.depthwise_norm`, with what it is written to."""
    count, height, width, channels = x.shape
    block = triton.next_power_of_2(channels)
    return Launch(
        depthwise_norm_kernel,
        count * height * triton.cdiv(width, PIXELS),
        {
            "x": x,
            "taps": taps,
            "bias": bias,
            "modulation": x if modulation is None else modulation,
            "out": torch.empty_like(x),
            "height": height,
            "width": width,
            "modulation_stride": stride_of(modulation),
        },
        {
            "channels": channels,
            "side": len(taps),
            "eps": NORM_EPS,
            "block": block,
            "tile": PIXELS,
            "scaled": modulation is not None,
        },
        warps=max(1, min(block // 128, 8)),
    )


def gelu_product(rows: Tensor, weight: Tensor, bias: Tensor | None, part: int) -> Launch:
    """Of `reference.gelu_product`."""
    count, tokens, _ = rows.shape
    tile = tile_for(rows, weight, part)
    tiles = triton.cdiv(tokens, tile.rows)
    shape = (count, tiles if part else 0, len(weight))
    return Launch(
        gelu_product_kernel,
        count * tiles * triton.cdiv(len(weight), tile.outputs),
        {
            "rows": rows,
            "weight": weight,
            "bias": weight if bias is None else bias,
            "out": rows.new_empty((count, tokens, len(weight))),
            "squares": rows.new_empty(shape, dtype=torch.float32),
            "tokens": tokens,
        },
        product_constants(weight, tile) | {"biased": bias is not None, "squared": part > 0},
        tile.warps,
        tile.stages,
    )


def grn_factors(squares: Tensor, gamma: Tensor) -> Launch:
    """Of `reference.grn_factors`."""
    count, parts, channels = squares.shape
    return Launch(
        grn_factors_kernel,
        count,
        {
            "squares": squares,
            "gamma": gamma,
            "out": squares.new_empty((count, channels)),
            "parts": parts,
        },
        {"channels": channels, "eps": NORM_EPS, "block": triton.next_power_of_2(channels)},
        warps=8,
    )


def residual_product(
    rows: Tensor,
    factors: Tensor,
    weight: Tensor,
    bias: Tensor,
    residual: Tensor,
    modulation: Tensor | None,
) -> Launch:
    """Of `reference.residual_product`."""
    count, tokens, _ = rows.shape
    tile = tile_for(rows, weight)
    gate = residual if modulation is None else modulation[:, len(weight) :]
    return Launch(
        residual_product_kernel,
        count * triton.cdiv(tokens, tile.rows) * triton.cdiv(len(weight), tile.outputs),
        {
            "rows": rows,
            "factors": factors,
            "weight": weight,
            "bias": bias,
            "residual": residual,
            "gate": gate,
            "out": torch.empty_like(residual),
            "tokens": tokens,
            "gate_stride": stride_of(modulation),
        },
        product_constants(weight, tile) | {"gated": modulation is not None},
        tile.warps,
        tile.stages,
    )


def token_norm(tokens: Tensor) -> Launch:
    """Of `reference.token_norm`."""
    return token_norms(tokens, None, None)


def token_norms(tokens: Tensor, update: Tensor | None, gain: Tensor | None) -> Launch:
    """Of `reference.token_norms`; without an update the tokens stay as they are."""
    dim = tokens.shape[-1]
    return Launch(
        token_norms_kernel,
        tokens.numel() // dim,
        {
            "tokens": tokens,
            "update": tokens if update is None else update,
            "gain": tokens if gain is None else gain,
            "total": tokens if update is None else torch.empty_like(tokens),
            "normed": torch.empty_like(tokens),
        },
        {
            "dim": dim,
            "eps": NORM_EPS,
            "block": triton.next_power_of_2(dim),
            "updated": update is not None,
        },
        warps=4,
    )


def turned_heads(qkv: Tensor, weight: Tensor, turns: Tensor) -> Launch:
    """Of `reference.turned_heads`."""
    count, tokens, _, heads, dim = qkv.shape
    rows = count * tokens * 2 * heads
    return Launch(
        turned_heads_kernel,
        triton.cdiv(rows, HEADS),
        {
            "qkv": qkv,
            "weight": weight,
            "turns": turns,
            "out": qkv.new_empty((count, tokens, 2, heads, dim)),
            "rows": rows,
            "tokens": tokens,
        },
        {"heads": heads, "dim": dim, "eps": NORM_EPS, "block_rows": HEADS},
        warps=4,
    )


def tile_for(rows: Tensor, weight: Tensor, part: int = 0) -> Tile:
    """The tile of a product; with `part` it has so many rows."""
    count, tokens, _ = rows.shape
    tiles = count * triton.cdiv(tokens, SQUARE.rows)
    if part == SMALL.rows or tiles * triton.cdiv(len(weight), SQUARE.outputs) < BUSY:
        return replace(SMALL, rows=part or SMALL.rows)
    wide = len(weight) % WIDE.outputs == 0 and shares(rows)
    return WIDE if wide else SQUARE


def shares(tensor: Tensor) -> bool:
    """Whether a tensor's GPU has the shared memory of a `WIDE` tile: data centres' since Hopper."""
    return tensor.is_cuda and torch.cuda.get_device_capability(tensor.device)[0] in (9, 10)


def product_constants(weight: Tensor, tile: Tile) -> dict[str, int | float | bool]:
    """What is the same of both products."""
    outputs, inputs = weight.shape
    return {
        "inputs": inputs,
        "outputs": outputs,
        "block_rows": tile.rows,
        "block_out": tile.outputs,
        "block_in": tile.inputs,
        "group": GROUP,
    }


def stride_of(modulation: Tensor | None) -> int:
    """From one image's modulation to the next one's: 0 where all have one."""
    return 0 if modulation is None or len(modulation) == 1 else modulation.stride(0)
