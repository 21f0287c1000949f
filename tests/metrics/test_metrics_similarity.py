"""Cosines of latents equal numpy's, per image and per position."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from latentcli.metrics.similarity import latent_cosine


def cosine(x: np.ndarray, y: np.ndarray) -> float:
    return float(x @ y / (np.linalg.norm(x) * np.linalg.norm(y)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_equals_numpy(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    a = torch.randn(3, 8, 5, 7).to(dtype)
    b = (a + torch.randn(a.shape) * torch.tensor([0.1, 1, 10]).view(3, 1, 1, 1)).to(dtype)
    result = latent_cosine(a, b)
    assert result.whole.dtype == result.positions.dtype == torch.float64
    for i, (x, y) in enumerate(zip(a.double().numpy(), b.double().numpy(), strict=True)):
        assert result.whole[i].item() == pytest.approx(cosine(x.ravel(), y.ravel()), abs=1e-12)
        places = [cosine(x[:, r, c], y[:, r, c]) for r in range(5) for c in range(7)]
        assert result.positions[i].item() == pytest.approx(np.mean(places), abs=1e-12)


@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e200])
def test_direction_counts_and_not_size(scale: float) -> None:
    a = torch.randn(2, 4, 3, 3, dtype=torch.float64)
    for sign in (1, -1):
        result = latent_cosine(a, a * scale * sign)
        assert result.whole.tolist() == pytest.approx([sign] * 2, abs=1e-12)
        assert result.positions.tolist() == pytest.approx([sign] * 2, abs=1e-12)


def test_zeros_have_no_direction() -> None:
    a = torch.zeros(2, 4, 2, 2)
    a[1, :, 0, 0] = 1
    result = latent_cosine(a, torch.zeros_like(a))
    assert result.whole.tolist() == [1, 0]
    assert result.positions.tolist() == [1, 0.75]
    assert latent_cosine(a, a).positions.tolist() == pytest.approx([1, 1])


def test_wrong_arguments() -> None:
    a = torch.zeros(1, 4, 2, 2)
    with pytest.raises(ValueError, match="equal shape"):
        latent_cosine(a, torch.zeros(1, 4, 2, 3))
    with pytest.raises(ValueError, match="equal shape"):
        latent_cosine(a[0], a[0])
    with pytest.raises(ValueError, match="floating point"):
        latent_cosine(a.int(), a.int())
