"""Values in bf16, fp16, fp8 and int8: how far they move, and what a reader gets back."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from latentcli.core.store_dtype import (
    arrived,
    as_stored,
    held,
    rounded,
    stored_bytes,
    stored_tensors,
    unsound,
)
from latentcli.core.types import STORE_DTYPES

SHAPES = st.tuples(*(st.integers(1, 4) for _ in range(4)))
# The smallest normal number of float32 is 1e-38: below, no ratio of two numbers is exact.
SIZES = st.floats(-25, 25)


@given(SHAPES, SIZES, st.integers(0, 2**32 - 1))
def test_int8_moves_a_value_by_half_a_step_of_its_channel(shape, size, seed):
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 10**size
    step = values.abs().amax((-2, -1), keepdim=True) / 127
    back = rounded("latent", values, "int8")
    assert back.dtype == torch.float32
    assert ((back - values).abs() <= step * (0.5 + 1e-4)).all()
    # The largest value of a channel is met, so rounding what was rounded moves nothing.
    assert torch.allclose(rounded("latent", back, "int8"), back, rtol=1e-5, atol=0)


@given(SHAPES, SIZES, st.integers(0, 2**32 - 1))
def test_fp8_moves_a_value_by_a_sixteenth_of_itself(shape, size, seed):
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 10**size
    top = values.abs().amax((-2, -1), keepdim=True)
    # Three bits of mantissa; below 2^-6 of 448 steps are of 2^-9.
    allowed = torch.maximum(values.abs() / 16, top / 448 * 2**-10) * (1 + 1e-4)
    assert ((rounded("latent", values, "fp8") - values).abs() <= allowed).all()


@pytest.mark.parametrize("dtype", STORE_DTYPES)
@pytest.mark.parametrize("part", ["latent", "logvar_flip", "class_token"])
def test_bytes_and_zeros(part, dtype):
    shape = (2, 5) if part == "class_token" else (2, 5, 3, 4)
    values = torch.zeros(shape)
    tensors = stored_tensors(part, values, dtype)
    assert sum(t.numel() * t.element_size() for t in tensors.values()) == stored_bytes(
        part, shape, dtype
    )
    assert torch.equal(held(tensors)[part].float(), values)
    assert unsound(part, values, tensors).tolist() == [0, 0]


def test_a_part_of_a_batch_is_what_a_batch_of_it_is():
    values = torch.randn(4, 3, 5, 5)
    for dtype in STORE_DTYPES:
        whole = stored_tensors("mean", values, dtype)
        for i in range(4):
            alone = stored_tensors("mean", values[i], dtype)
            assert all(torch.equal(alone[n].float(), whole[n][i].float()) for n in whole)


def test_what_is_not_finite_is_counted():
    values = torch.zeros(4, 2, 3, 3)
    values[1, 0, 0, :2] = math.nan
    values[2, 1, 2, 2] = -math.inf
    values[3, 0, 0, 0] = 1e6
    for dtype, counts in {"fp16": [0, 2, 1, 1], "int8": [0, 2, 1, 0], "fp8": [0, 2, 1, 0]}.items():
        tensors = stored_tensors("latent", values, dtype)
        assert unsound("latent", values, tensors).tolist() == counts
        there = arrived(as_stored({"latent": values}, dtype))
        assert there.unsound == {"latent": counts} and list(there.tensors) == list(tensors)
        assert there.checked("latent").shape == values.shape
        assert there.dtype("latent") == ("float16" if dtype == "fp16" else "float32")


def test_values_without_their_scale_are_refused():
    tensors = stored_tensors("latent", torch.randn(3, 4, 4), "int8")
    assert list(tensors) == ["latent_quantised", "latent_scale"]
    with pytest.raises(ValueError, match="needs a scale per channel, there is none"):
        held({"latent_quantised": tensors["latent_quantised"]})
    with pytest.raises(ValueError, match=r"needs a scale per channel, there is \[2\]"):
        held(tensors | {"latent_scale": torch.ones(2)})
    # A part of another tool that happens to be called so is left alone.
    assert list(held({"noise_scale": torch.ones(1)})) == ["noise_scale"]


def test_fp8_is_read_to_the_bit():
    codes = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn)
    numbers = codes[codes.float().isfinite()].view(1, 2, 127)
    tensors = {"latent_quantised": numbers, "latent_scale": torch.tensor([3.0])}
    assert torch.equal(held(tensors)["latent"], numbers.float() * 3)
