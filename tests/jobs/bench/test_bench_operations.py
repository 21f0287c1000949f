"""Operators, FLOPs and bytes of small networks, against those counted by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from latentcli.jobs.bench.operations import Operator, count_operators
from latentcli.models.fast.fcdm import FastBlock
from latentcli.models.fcdm_network import FCDMBlock

N, H, W, C = 2, 6, 4, 8
CELLS = N * H * W
FLOAT = 4


@torch.inference_mode()
def counted(network, *inputs):
    return count_operators(lambda: network(*inputs))


def total(done: list[Operator]) -> tuple[int, int]:
    return sum(each.flop for each in done), sum(each.nbytes for each in done)


@pytest.mark.parametrize(("dtype", "size"), [(torch.float32, 4), (torch.bfloat16, 2)])
def test_a_linear_layer(dtype, size):
    done = counted(nn.Linear(C, 3).to(dtype), torch.zeros(N, H, W, C, dtype=dtype))
    # The rows are a view, and so are the transposed weights.
    assert [each.name for each in done] == ["aten::addmm"]
    assert total(done) == (2 * CELLS * C * 3, size * (CELLS * C + C * 3 + 3 + CELLS * 3))


def test_convolutions_with_and_without_groups():
    x = torch.zeros(N, C, H, W)
    flop, moved = total(counted(nn.Conv2d(C, 5, 3, padding=1), x))
    assert flop == 2 * CELLS * 5 * C * 9
    assert moved == FLOAT * (CELLS * C + 5 * C * 9 + 5 + CELLS * 5)
    flop, moved = total(counted(nn.Conv2d(C, C, 7, padding=3, groups=C), x))
    assert flop == 2 * CELLS * C * 49
    assert moved == FLOAT * (2 * CELLS * C + C * 49 + C)


def test_a_block_with_a_residual():
    up, down = nn.Linear(C, 4 * C, bias=False), nn.Linear(4 * C, C, bias=False)
    x = torch.zeros(CELLS, C)
    done = counted(lambda rows: rows + down(F.gelu(up(rows))), x)
    assert [each.name for each in done] == ["aten::mm", "aten::gelu", "aten::mm", "aten::add"]
    narrow, wide, weight = CELLS * C, CELLS * 4 * C, 4 * C * C
    assert total(done) == (
        2 * 2 * CELLS * C * 4 * C,
        FLOAT * (2 * (narrow + weight + wide) + 2 * wide + 3 * narrow),
    )


def test_attention():
    tokens, heads, side = 5, 3, 16
    q, k, v = torch.zeros(3, N, heads, tokens, side)
    done = counted(F.scaled_dot_product_attention, q, k, v)
    assert len(done) == 1
    assert done[0].flop == 2 * N * heads * tokens * tokens * (side + side)
    assert done[0].nbytes >= FLOAT * 4 * N * heads * tokens * side


def test_a_product_by_reordered_weights():
    """As a CPU that multiplies in bfloat16 has them, of which torch's own counter knows nothing."""
    operators = torch.ops.mkldnn
    if not hasattr(operators, "_reorder_linear_weight"):
        pytest.skip("this torch has no oneDNN")
    weight = operators._reorder_linear_weight(torch.zeros(3, C))
    pointwise = operators._linear_pointwise
    done = counted(lambda x: pointwise(x, weight, None, "none", [], ""), torch.zeros(CELLS, C))
    assert total(done) == (2 * CELLS * C * 3, FLOAT * (CELLS * C + 3 * C + CELLS * 3))


@pytest.mark.parametrize("modulated", [False, True])
def test_a_block_in_kernels_has_as_many_flops_as_in_operators(modulated):
    block = FastBlock(FCDMBlock(C, 4 * C, 7, layer_scale=not modulated), torch.float32)
    x, modulation = torch.zeros(N, H, W, C), torch.zeros(N, 2 * C) if modulated else None
    fused, plain = (counted(way, x, modulation) for way in (block.fused, block.plain))
    assert {each.name.partition("::")[0] for each in fused} == {"latentcli"}
    products = 2 * 2 * CELLS * C * 4 * C
    assert total(fused)[0] == total(plain)[0] == products + 2 * CELLS * C * 49


def test_what_moves_no_bytes_is_not_counted():
    x = torch.zeros(N, C, H, W)
    free = counted(lambda t: t.permute(0, 2, 3, 1).chunk(2, -1)[0][:2].unsqueeze(0), x)
    assert free == [] == counted(torch.empty_like, x)
    (scaled,) = counted(lambda t: t.mul_(2.0), x)
    assert scaled.nbytes == FLOAT * 2 * CELLS * C
    (copied,) = counted(lambda t: t.expand(7, -1, -1, -1, -1).contiguous(), x)
    assert copied.nbytes == FLOAT * (1 + 7) * CELLS * C
