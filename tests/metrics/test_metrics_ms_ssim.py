"""MS-SSIM equals pytorch-msssim, and the paper's formula over scikit-image's filters."""

from __future__ import annotations

import numpy as np
import pytest
import pytorch_msssim
import torch
from scipy.ndimage import gaussian_filter
from skimage import data

from latentcli.metrics.ms_ssim import LEAST_SIDE, POWERS, ms_ssim


def peer(a: torch.Tensor, b: torch.Tensor) -> np.ndarray:
    """In float64. Its own window is float32, whose sum is not quite 1: worth 2e-6."""
    offsets = torch.arange(-5, 6, dtype=torch.float64)
    window = (-(offsets**2) / 4.5).exp()
    window = (window / window.sum()).expand(3, 1, 1, 11)
    a, b = a.double(), b.double()
    return pytorch_msssim.ms_ssim(a, b, win=window, size_average=False).numpy()


def formula(a: np.ndarray, b: np.ndarray) -> float:
    """The paper's, of one channel whose sides halve evenly, with scipy's Gaussian."""
    c1, c2, score = (0.01 * 255) ** 2, (0.03 * 255) ** 2, 1.0
    a, b = a.astype(np.float64), b.astype(np.float64)
    for scale, power in enumerate(POWERS):

        def local(image: np.ndarray) -> np.ndarray:
            return gaussian_filter(image, 1.5, radius=5)[5:-5, 5:-5]

        mean_a, mean_b = local(a), local(b)
        contrast = 2 * (local(a * b) - mean_a * mean_b) + c2
        contrast /= local(a * a) - mean_a**2 + local(b * b) - mean_b**2 + c2
        luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
        term = (contrast * luminance if scale == len(POWERS) - 1 else contrast).mean()
        score *= max(term, 0.0) ** power
        a, b = (x.reshape(len(x) // 2, 2, -1, 2).mean((1, 3)) for x in (a, b))
    return score


def noisy(image: np.ndarray, noise: float) -> tuple[torch.Tensor, torch.Tensor]:
    """A picture and itself with noise, uint8 [1, 3, H, W]."""
    rng = np.random.default_rng(0)
    other = np.clip(image + rng.normal(0, noise, image.shape), 0, 255).astype(np.uint8)
    a, b = (torch.from_numpy(x.transpose(2, 0, 1).copy())[None] for x in (image, other))
    return a, b


@pytest.mark.parametrize("size", [(161, 161), (176, 208), (163, 190), (257, 181), (192, 700)])
def test_equals_pytorch_msssim(size: tuple[int, int]) -> None:
    """Odd sides at any scale included."""
    rng = torch.Generator().manual_seed(0)
    a = torch.randint(0, 256, (3, 3, *size), dtype=torch.uint8, generator=rng)
    noise = torch.randint(-60, 60, a.shape, generator=rng)
    b = (a.int() + noise // torch.tensor([1, 4, 30]).view(3, 1, 1, 1)).clamp(0, 255).byte()
    result = ms_ssim(a, b)
    assert result.dtype == torch.float64
    assert np.abs(result.numpy() - peer(a, b)).max() < 1e-9


@pytest.mark.parametrize("noise", [2, 20, 90])
def test_photographs_equal_pytorch_msssim(noise: int) -> None:
    for photograph in (data.astronaut(), data.coffee(), data.chelsea()):
        a, b = noisy(photograph, noise)
        assert abs(ms_ssim(a, b).item() - peer(a, b)[0]) < 1e-9


def test_is_near_pytorch_msssim_as_it_comes() -> None:
    a, b = noisy(data.astronaut(), 20)
    published = pytorch_msssim.ms_ssim(a.float(), b.float(), data_range=255).item()
    assert abs(ms_ssim(a, b).item() - published) < 5e-6


def test_equals_the_formula() -> None:
    a, b = noisy(data.astronaut()[:256, :320], 25)
    expected = np.mean([formula(x, y) for x, y in zip(a[0].numpy(), b[0].numpy(), strict=True)])
    assert abs(ms_ssim(a, b).item() - expected) < 1e-9


def test_opposite_contrast_scores_zero() -> None:
    a = torch.from_numpy(data.camera()[None, None, :256, :256].repeat(3, axis=1))
    assert ms_ssim(a, 255 - a).item() == 0.0 == peer(a, 255 - a)[0]


def test_identical_images_score_one_and_none_give_none() -> None:
    a = torch.randint(0, 256, (2, 3, 170, 165), dtype=torch.uint8)
    assert ms_ssim(a, a).tolist() == pytest.approx([1, 1], abs=1e-12)
    assert ms_ssim(a[:0], a[:0]).shape == (0,)


def test_wrong_arguments() -> None:
    a = torch.zeros(1, 3, LEAST_SIDE - 1, 300, dtype=torch.uint8)
    with pytest.raises(ValueError, match="300x160, MS-SSIM needs at least 161x161"):
        ms_ssim(a, a)
    with pytest.raises(ValueError, match="uint8"):
        ms_ssim(a.float(), a)
    with pytest.raises(ValueError, match=r"\[N, 3, H, W\]"):
        ms_ssim(a, a[..., 1:])
