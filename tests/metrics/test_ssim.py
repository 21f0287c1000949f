"""SSIM equals scikit-image's, set to the 2004 paper's definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage import data
from skimage.metrics import structural_similarity

from latentcli.metrics.ssim import ssim


def reference(a: np.ndarray, b: np.ndarray) -> float:
    """uint8 [3, H, W] twice."""
    score = structural_similarity(
        a,
        b,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        channel_axis=0,
        data_range=255,
    )
    return float(score)


def scores(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    result = ssim(torch.from_numpy(a), torch.from_numpy(b))
    assert result.dtype == torch.float64
    return result.numpy()


@pytest.mark.parametrize("size", [(11, 11), (11, 40), (37, 12), (64, 65)])
def test_random_images_equal_skimage(size: tuple[int, int]) -> None:
    a, b = np.random.default_rng(0).integers(0, 256, (2, 3, 3, *size), dtype=np.uint8)
    expected = [reference(x, y) for x, y in zip(a, b, strict=True)]
    assert np.abs(scores(a, b) - expected).max() < 1e-9


@pytest.mark.parametrize("noise", [1, 10, 60])
def test_photographs_equal_skimage(noise: int) -> None:
    rng = np.random.default_rng(noise)
    photographs = [data.astronaut()[:256, :384], data.coffee()[:256, :384]]
    a = np.stack([photograph.transpose(2, 0, 1) for photograph in photographs])
    b = np.clip(a + rng.normal(0, noise, a.shape), 0, 255).astype(np.uint8)
    expected = [reference(x, y) for x, y in zip(a, b, strict=True)]
    assert np.abs(scores(a, b) - expected).max() < 1e-9


def test_flat_bright_images_equal_skimage() -> None:
    a = np.full((1, 3, 32, 32), 254, np.uint8)
    b = a.copy()
    b[..., ::3] = 255
    assert abs(scores(a, b)[0] - reference(a[0], b[0])) < 1e-9


def test_identical_images_score_one() -> None:
    a = np.random.default_rng(0).integers(0, 256, (2, 3, 20, 20), dtype=np.uint8)
    assert scores(a, a) == pytest.approx([1, 1], abs=1e-12)
    assert scores(a[:0], a[:0]).shape == (0,)


def test_wrong_arguments() -> None:
    a = torch.zeros(1, 3, 10, 40, dtype=torch.uint8)
    with pytest.raises(ValueError, match="40x10, SSIM needs at least 11x11"):
        ssim(a, a)
    with pytest.raises(ValueError, match="uint8"):
        ssim(a.float(), a.float())
    with pytest.raises(ValueError, match=r"\[N, 3, H, W\]"):
        ssim(a[0], a[0])
