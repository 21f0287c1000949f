"""Noise of pictures: of seed and key alone, and the same whoever draws it, and when."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from latentcli.jobs.inference.accelerator import Cpu
from latentcli.jobs.inference.noise import begin_noise, sample_noise, sample_seed


@given(st.integers(0, 2**40), st.text())
def test_seeds_depend_on_seed_and_key(seed, key):
    torch.Generator().manual_seed(sample_seed(seed, key))
    assert sample_seed(seed, key) != sample_seed(seed + 1, key)
    assert sample_seed(seed, key) != sample_seed(seed, key + "x")


def test_noise_is_that_of_the_sample_alone():
    together = sample_noise(3, ["a", "b", "c"], (2, 3, 4))
    assert torch.equal(together[1], sample_noise(3, ["b"], (2, 3, 4))[0])
    assert not torch.equal(together[0], together[1])
    long = sample_noise(0, ["a"], (100, 100))
    assert abs(long.mean()) < 0.05 and abs(long.std() - 1) < 0.05
    sample_noise(0, ["\udcff is no UTF-8"], (1,))


@given(
    st.integers(0, 2**32),
    st.lists(st.text(max_size=4), min_size=1, max_size=6),
    st.lists(st.integers(1, 9), min_size=1, max_size=3),
)
def test_threads_draw_the_same(seed, keys, shape):
    """In one stream of torch's own for each key."""
    noise = begin_noise(Cpu(), seed, keys, tuple(shape))
    assert torch.equal(noise[1:3].ready(), sample_noise(seed, keys[1:3], tuple(shape)))
    each = [torch.Generator().manual_seed(sample_seed(seed, key)) for key in keys]
    expected = torch.stack([torch.randn(shape, generator=generator) for generator in each])
    assert torch.equal(noise.ready(), expected)
    assert torch.equal(sample_noise(seed, keys, tuple(shape)), expected)
