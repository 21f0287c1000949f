"""SSIM equals scikit-image's: its default, and set to the 2004 paper's definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage import data
from skimage.metrics import structural_similarity

from latentcli.metrics.ssim import WINDOWS, ssim

PAPER = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
SETTINGS = {"uniform": {}, "gaussian": PAPER}


@pytest.fixture(params=list(WINDOWS))
def window(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def reference(a: np.ndarray, b: np.ndarray, window: str) -> float:
    """uint8 [3, H, W] twice."""
    return float(structural_similarity(a, b, channel_axis=0, data_range=255, **SETTINGS[window]))


def scores(a: np.ndarray, b: np.ndarray, window: str) -> np.ndarray:
    result = ssim(torch.from_numpy(a), torch.from_numpy(b), window)
    assert result.dtype == torch.float64
    return result.numpy()


@pytest.mark.parametrize("size", [(11, 11), (11, 40), (37, 12), (64, 65)])
def test_random_images_equal_skimage(size: tuple[int, int], window: str) -> None:
    a, b = np.random.default_rng(0).integers(0, 256, (2, 3, 3, *size), dtype=np.uint8)
    expected = [reference(x, y, window) for x, y in zip(a, b, strict=True)]
    assert np.abs(scores(a, b, window) - expected).max() < 1e-9


@pytest.mark.parametrize("noise", [1, 10, 60])
def test_photographs_equal_skimage(noise: int, window: str) -> None:
    rng = np.random.default_rng(noise)
    photographs = [data.astronaut()[:256, :384], data.coffee()[:256, :384]]
    a = np.stack([photograph.transpose(2, 0, 1) for photograph in photographs])
    b = np.clip(a + rng.normal(0, noise, a.shape), 0, 255).astype(np.uint8)
    expected = [reference(x, y, window) for x, y in zip(a, b, strict=True)]
    assert np.abs(scores(a, b, window) - expected).max() < 1e-9


def test_flat_bright_images_equal_skimage(window: str) -> None:
    a = np.full((1, 3, 32, 32), 254, np.uint8)
    b = a.copy()
    b[..., ::3] = 255
    assert abs(scores(a, b, window)[0] - reference(a[0], b[0], window)) < 1e-9


def test_identical_images_score_one(window: str) -> None:
    a = np.random.default_rng(0).integers(0, 256, (2, 3, 20, 20), dtype=np.uint8)
    assert scores(a, a, window) == pytest.approx([1, 1], abs=1e-12)
    assert scores(a[:0], a[:0], window).shape == (0,)


def test_wrong_arguments() -> None:
    a = torch.zeros(1, 3, 10, 40, dtype=torch.uint8)
    with pytest.raises(ValueError, match="40x10, gaussian SSIM needs at least 11x11"):
        ssim(a, a, "gaussian")
    with pytest.raises(ValueError, match="6x40, uniform SSIM needs at least 7x7"):
        ssim(a.new_zeros(1, 3, 40, 6), a.new_zeros(1, 3, 40, 6))
    with pytest.raises(ValueError, match="uint8"):
        ssim(a.float(), a.float())
    with pytest.raises(ValueError, match=r"\[N, 3, H, W\]"):
        ssim(a[0], a[0])
