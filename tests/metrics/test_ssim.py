"""SSIM equals scikit-image's: its default, and set to the 2004 paper's definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage import data
from skimage.metrics import structural_similarity

from latentcli.metrics.ssim import WINDOWS, mean_over_windows, ssim

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


def test_50_random_images_of_random_sizes_equal_skimage(window: str) -> None:
    rng = np.random.default_rng(5)
    for _ in range(50):
        size = rng.integers(WINDOWS[window].side, 160, 2)
        a = rng.integers(0, 256, (1, 3, *size), dtype=np.uint8)
        b = np.clip(a + rng.normal(0, rng.integers(1, 100), a.shape), 0, 255).astype(np.uint8)
        assert abs(scores(a, b, window)[0] - reference(a[0], b[0], window)) < 1e-9


@pytest.mark.parametrize("size", [(500, 530), (140, 1100), (6000, 12), (11, 12000)])
def test_images_of_several_tiles_equal_skimage(size: tuple[int, int], window: str) -> None:
    a, b = np.random.default_rng(1).integers(0, 256, (2, 1, 3, *size), dtype=np.uint8)
    expected = [reference(x, y, window) for x, y in zip(a, b, strict=True)]
    assert np.abs(scores(a, b, window) - expected).max() < 1e-9


def test_many_small_images_score_as_each_alone(window: str) -> None:
    a, b = np.random.default_rng(2).integers(0, 256, (2, 700, 3, 16, 20), dtype=np.uint8)
    alone = [scores(a[i : i + 1], b[i : i + 1], window)[0] for i in (0, 1, 350, 699)]
    assert scores(a, b, window)[[0, 1, 350, 699]] == pytest.approx(alone, abs=1e-12)


@pytest.mark.parametrize("shape", [(3, 40, 50), (500, 30, 31), (2, 900, 1100), (1, 7, 200_000)])
def test_every_window_is_seen_once_in_bounded_pieces(shape: tuple[int, int, int]) -> None:
    """The pieces must not grow with the images; a window's score here is its corner's position."""
    planes, height, width = shape
    rows = torch.arange(height).view(1, -1, 1).expand(shape)
    columns = torch.arange(width).view(1, 1, -1).expand(shape)
    largest = 0

    def corner(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        nonlocal largest
        largest = max(largest, x.numel())
        return (x * 2.0 + y * 3.0)[:, : x.shape[1] - 6, : x.shape[2] - 6].double()

    mean = mean_over_windows(rows, columns, 7, corner)
    assert mean.tolist() == pytest.approx([height - 7 + 1.5 * (width - 7)] * planes)
    assert largest <= 2 * 2**16 * torch.get_num_threads()


def test_extreme_contrast_equals_skimage(window: str) -> None:
    """The largest sums that integers must hold: black against white, and both white."""
    white = np.full((1, 3, 24, 24), 255, np.uint8)
    for a, b in ((white, white), (white, white * 0), (white * 0, white * 0)):
        assert abs(scores(a, b, window)[0] - reference(a[0], b[0], window)) < 1e-12
    checks = np.indices((24, 24)).sum(0) % 2 * np.uint8(255)
    a = np.broadcast_to(checks.astype(np.uint8), (1, 3, 24, 24)).copy()
    assert abs(scores(a, 255 - a, window)[0] - reference(a[0], 255 - a[0], window)) < 1e-12


@pytest.mark.parametrize("noise", [1, 10, 60])
def test_photographs_equal_skimage(noise: int, window: str) -> None:
    rng = np.random.default_rng(noise)
    sources = (data.astronaut, data.coffee, data.chelsea, data.rocket)
    photographs = [source()[:256, :384] for source in sources]
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
