"""The posterior's maths, in float32 whatever the network gives."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from latentcli.core.posterior import Posterior


def posterior(mean: float, logsnr: float, dtype: torch.dtype = torch.float32) -> Posterior:
    shape = (2, 3, 4, 5)
    return Posterior(torch.full(shape, mean, dtype=dtype), torch.full(shape, logsnr, dtype=dtype))


@settings(deadline=None, max_examples=50)
@given(st.floats(-30, 30))
def test_variance_is_preserved(logsnr):
    p = posterior(1.0, logsnr)
    torch.testing.assert_close(p.alpha**2 + p.sigma**2, torch.ones(2, 3, 4, 5))
    expected = math.sqrt(1 / (1 + math.exp(-logsnr)))
    torch.testing.assert_close(p.alpha, torch.full((2, 3, 4, 5), expected))


def test_extremes_stay_finite():
    for logsnr in (-1e4, 1e4):
        p = posterior(2.0, logsnr)
        assert torch.isfinite(p.mode()).all() and torch.isfinite(p.sample()).all()


def test_mode_and_sample():
    p = posterior(2.0, 0.0)
    root = math.sqrt(0.5)
    torch.testing.assert_close(p.mode(), torch.full((2, 3, 4, 5), 2 * root))
    noise = torch.randn(2, 3, 4, 5)
    torch.testing.assert_close(p.sample(noise), p.mode() + root * noise)
    first = p.sample(generator=torch.Generator().manual_seed(7))
    assert torch.equal(first, p.sample(generator=torch.Generator().manual_seed(7)))
    assert not torch.equal(first, p.sample(generator=torch.Generator().manual_seed(8)))
    eps = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(7))
    assert torch.equal(first, p.sample(eps))


def test_bfloat16_is_lifted_before_the_maths():
    p = posterior(1.5, 3.0, torch.bfloat16)
    assert p.mode().dtype == p.alpha.dtype == p.sigma.dtype == p.sample().dtype == torch.float32
    torch.testing.assert_close(p.mode(), posterior(1.5, 3.0).mode())


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"\(1, 2\).*\(2, 1\)"):
        Posterior(torch.zeros(1, 2), torch.zeros(2, 1))
