"""States of latents: there and back, and what a space does not have."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from latentcli.latents.states import Normalisation, in_state

SDXL = Normalisation("scaled", (0.0,) * 4, (1 / 0.13025,) * 4)
TWO = Normalisation("whitened", (1.0, -2.0), (0.5, 4.0))


def test_numbers():
    raw = torch.tensor([[2.0], [6.0]])[:, :, None]
    assert in_state(raw, "raw", "whitened", TWO).flatten().tolist() == [2.0, 2.0]
    assert in_state(raw, "whitened", "raw", TWO).flatten().tolist() == [2.0, 22.0]
    scaled = in_state(torch.ones(4, 1, 1), "raw", "scaled", SDXL)
    assert scaled.flatten().tolist() == pytest.approx([0.13025] * 4)
    batch = in_state(torch.stack([raw, raw]), "raw", "whitened", TWO)
    assert batch.shape == (2, 2, 1, 1) and batch[1].flatten().tolist() == [2.0, 2.0]


@settings(deadline=None)
@given(st.lists(st.floats(-50, 50, width=16), min_size=2, max_size=2))
def test_there_and_back(values):
    latents = torch.tensor(values, dtype=torch.bfloat16)[:, None, None]
    there = in_state(latents, "whitened", "raw", TWO)
    assert there.dtype == torch.float32
    torch.testing.assert_close(in_state(there, "raw", "whitened", TWO), latents.float())
    assert torch.equal(in_state(latents, "raw", "raw", TWO), latents.float())


@pytest.mark.parametrize("have, want", [("raw", "scaled"), ("moments", "raw"), ("raw", "moments")])
def test_other_states(have, want):
    with pytest.raises(ValueError, match="whitened or raw"):
        in_state(torch.zeros(2, 1, 1), have, want, TWO)


def test_other_channels():
    with pytest.raises(ValueError, match="3 channels, those of this space 2"):
        in_state(torch.zeros(3, 1, 1), "raw", "whitened", TWO)
    with pytest.raises(ValueError, match="2 means and 1"):
        Normalisation("whitened", (1.0, 2.0), (1.0,))
    with pytest.raises(ValueError, match="allowed are whitened and scaled"):
        Normalisation("raw", (1.0,), (1.0,))
