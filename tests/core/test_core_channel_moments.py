"""Moments of channels: right, and of each latent by itself, wherever they are added up."""

from __future__ import annotations

import math

import pytest
import torch
from harness.fake_gpu import OnDevice, fake_gpu
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from latentcli.core.channel_moments import channel_moments

SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 9), st.integers(1, 9))
GPU = torch.device("cuda:0")


def moments(latents: Tensor, device: str) -> tuple[Tensor, Tensor]:
    if device == "cpu":
        return channel_moments(latents)
    with pytest.MonkeyPatch.context() as patch, fake_gpu(patch):
        means, squares = channel_moments(OnDevice(latents, GPU))
        return means.values, squares.values


@settings(max_examples=30, deadline=None)
@given(SHAPES, st.sampled_from(["cpu", "cuda"]), st.floats(-1e3, 1e3), st.integers(0, 99))
def test_a_latent_has_the_same_moments_in_every_batch(shape, device, offset, seed):
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) + offset
    latents = latents.bfloat16()
    means, squares = moments(latents, device)
    assert means.dtype == squares.dtype == torch.float64 and means.shape == shape[:2]
    for i in range(shape[0]):
        alone = moments(latents[i : i + 1], device)
        assert torch.equal(alone[0][0], means[i]) and torch.equal(alone[1][0], squares[i])
        for c, values in enumerate(latents[i].double().flatten(1).tolist()):
            mean = math.fsum(values) / len(values)
            assert means[i, c].item() == pytest.approx(mean, rel=1e-13, abs=1e-13)
            exact = math.fsum((value - mean) ** 2 for value in values)
            assert squares[i, c].item() == pytest.approx(exact, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_what_is_not_finite_stays_with_its_latent(device):
    latents = torch.ones(3, 2, 4, 4)
    latents[1, 0, 0, 0] = math.inf
    means, squares = moments(latents, device)
    assert means.isfinite().tolist() == [[True, True], [False, True], [True, True]]
    assert squares.isfinite().tolist() == means.isfinite().tolist()


def test_of_no_latents_there_are_none():
    means, squares = channel_moments(torch.zeros(0, 3, 2, 2))
    assert means.shape == squares.shape == (0, 3)
