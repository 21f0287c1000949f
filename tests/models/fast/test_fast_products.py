"""Products by weights that were laid out before against the same in plain torch."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from latentcli.jobs.inference.memory import own_bytes
from latentcli.models.fast import products
from latentcli.models.fast.products import Product, traceable, unit_rms

INPUTS, OUTPUTS = 48, 80


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def dtype(request) -> torch.dtype:
    return request.param


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def assert_near(got: torch.Tensor, want: torch.Tensor) -> None:
    """Equal up to a few roundings: a processor without bfloat16 rounds after each step."""
    atol = 4 * torch.finfo(got.dtype).eps * want.abs().max().item()
    torch.testing.assert_close(got, want.to(got.dtype), rtol=0, atol=atol)


def product(dtype: torch.dtype, bias: bool = True) -> Product:
    weight = draw(OUTPUTS, INPUTS) / INPUTS**0.5
    return Product(weight, draw(OUTPUTS, seed=1) if bias else None, dtype)


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "none"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 4), (1, 5, 2)])
def test_the_three_products(dtype, shape, bias):
    layer = product(dtype, bias)
    rows, other = draw(*shape, INPUTS, seed=2).to(dtype), draw(*shape, OUTPUTS, seed=3).to(dtype)
    exact = F.linear(rows.double(), layer.in_order().double())
    exact = exact + layer.bias.double() if bias else exact
    for got, want in (
        (layer(rows), exact),
        (layer.gelu(rows), F.gelu(exact)),
        (layer.plus(rows, other), exact + other.double()),
    ):
        assert got.dtype == dtype and got.shape == want.shape
        assert_near(got, want)


def test_rows_need_not_be_contiguous(dtype):
    layer, rows = product(dtype), draw(4, INPUTS, 6, seed=2).to(dtype).transpose(1, 2)
    other = draw(4, OUTPUTS, 6, seed=3).to(dtype).transpose(1, 2)
    assert_near(layer(rows), layer(rows.contiguous()))
    want = layer.plus(rows.contiguous(), other.contiguous())
    assert_near(layer.plus(rows, other), want)


def test_a_row_is_the_same_on_any_number_of_threads(dtype):
    layer, rows = product(dtype), draw(300, INPUTS, seed=2).to(dtype)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(layer.gelu(rows))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_weights_that_are_cast_are_laid_out_anew():
    rows = draw(3, INPUTS, seed=2).bfloat16()
    layer = product(torch.bfloat16)
    want = layer(rows)
    assert layer.to(torch.float32)(rows.float()).dtype == torch.float32
    assert torch.equal(layer.to(torch.bfloat16)(rows), want)


def test_without_the_operators_torch_multiplies(monkeypatch):
    rows, weight = draw(3, INPUTS, seed=2).bfloat16(), draw(OUTPUTS, INPUTS).bfloat16()
    monkeypatch.setattr(products, "OPERATORS", ("_no_such_operator",))
    layer = Product(weight, None, torch.bfloat16)
    assert layer.weight.layout is torch.strided
    assert torch.equal(layer(rows), F.linear(rows, weight))


def test_a_weight_is_there_once_and_counted(dtype):
    """What --max-memory counts is what is there: parameters and buffers, nothing beside them."""
    layer = product(dtype)
    assert own_bytes(layer) == (OUTPUTS * INPUTS + OUTPUTS) * dtype.itemsize
    assert layer.weight.shape == (OUTPUTS, INPUTS) and not list(layer.buffers())
    assert not [name for name, held in vars(layer).items() if isinstance(held, torch.Tensor)]


def test_weights_are_read_as_they_were_given(dtype):
    layer, weight = product(dtype), draw(OUTPUTS, INPUTS) / INPUTS**0.5
    state = layer.state_dict()
    assert sorted(state) == ["bias", "weight"] and not state["weight"].requires_grad
    assert torch.equal(state["weight"], weight.to(dtype))
    assert torch.equal(layer.in_order(), weight.to(dtype))


def test_the_compiler_sees_a_plain_product():
    layer, rows = product(torch.bfloat16), draw(3, INPUTS, seed=2).bfloat16()
    traceable(nn.Sequential(layer))
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(rows), F.linear(rows, layer.weight, layer.bias))


def test_unit_rms(dtype):
    x = draw(2, 3, 64).to(dtype) * 5
    torch.testing.assert_close(unit_rms(x), F.rms_norm(x, (64,), eps=1e-6))
    assert torch.equal(unit_rms(torch.zeros(1, 8, dtype=dtype)), torch.zeros(1, 8, dtype=dtype))
