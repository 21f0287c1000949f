"""The posterior's maths, in float32 whatever the network gives."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from latentcli.core.posterior import (
    GaussianPosterior,
    PointPosterior,
    Posterior,
    posterior_of,
)


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


def test_a_gaussian_posterior_is_mean_and_scaled_noise():
    mean, logvar = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    posterior = GaussianPosterior(mean, logvar)
    noise = torch.randn(2, 3, 4, 5)
    assert torch.equal(posterior.mode(), mean)
    torch.testing.assert_close(posterior.sample(noise), mean + logvar.exp().sqrt() * noise)
    same = [posterior.sample(generator=torch.Generator().manual_seed(3)) for _ in range(2)]
    assert torch.equal(*same) and not torch.equal(same[0], mean)


def test_log_variances_are_clamped():
    posterior = GaussianPosterior(torch.zeros(1, 1, 1, 2), torch.tensor([[[[-99.0, 99.0]]]]))
    assert posterior.moments()["logvar"].flatten().tolist() == [-30.0, 20.0]
    assert posterior.sample(torch.ones(1, 1, 1, 2)).flatten()[1] == pytest.approx(math.exp(10))


def test_a_point_has_nothing_to_sample():
    point = PointPosterior(torch.randn(1, 2, 3, 4).bfloat16())
    assert point.mode().dtype is torch.float32
    assert torch.equal(point.sample(torch.ones(1, 2, 3, 4)), point.mode())


@pytest.mark.parametrize(
    "posterior",
    [
        Posterior(torch.randn(1, 2, 3, 4), torch.randn(1, 2, 3, 4)),
        GaussianPosterior(torch.randn(1, 2, 3, 4), torch.randn(1, 2, 3, 4)),
        PointPosterior(torch.randn(1, 2, 3, 4)),
    ],
)
def test_stored_moments_give_the_posterior_back(posterior):
    again = posterior_of(posterior.moments())
    assert type(again) is type(posterior)
    assert torch.equal(again.mode(), posterior.mode())


def test_mean_and_logvar_must_agree():
    with pytest.raises(ValueError, match="logvar is"):
        GaussianPosterior(torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 3, 5))
