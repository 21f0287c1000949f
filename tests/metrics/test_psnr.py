"""PSNR equals its definition; summaries equal numpy's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio

from latentcli.metrics.psnr import psnr, summarise


def test_known_values() -> None:
    a = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    b = a.clone()
    b[1] = 1
    b[2] = 255
    b[3, 0, 0, 0] = 10
    result = psnr(a, b)
    assert result.dtype == torch.float64
    expected = [math.inf, 20 * math.log10(255), 0.0, 10 * math.log10(255**2 * 192 / 100)]
    assert result.tolist() == pytest.approx(expected, abs=1e-12)


def test_equals_skimage() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 256, (2, 5, 3, 33, 47), dtype=np.uint8)
    expected = [peak_signal_noise_ratio(x, y, data_range=255) for x, y in zip(a, b, strict=True)]
    assert psnr(torch.from_numpy(a), torch.from_numpy(b)).numpy() == pytest.approx(
        expected, abs=1e-10
    )


def test_large_images_do_not_overflow() -> None:
    a = torch.zeros(1, 3, 1024, 1024, dtype=torch.uint8)
    assert psnr(a, torch.full_like(a, 255)).item() == 0.0


def test_wrong_arguments() -> None:
    a = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    with pytest.raises(ValueError, match="uint8"):
        psnr(a.float(), a)
    with pytest.raises(ValueError, match=r"\[N, 3, H, W\]"):
        psnr(a[0], a[0])
    with pytest.raises(ValueError, match=r"\[N, 3, H, W\]"):
        psnr(a, a[..., :4])


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50))
def test_summary_equals_numpy(values: list[float]) -> None:
    names = ("median", "p5", "p95")
    summary = summarise(values)
    expected = dict(zip(names, np.percentile(values, [50, 5, 95]).tolist(), strict=True))
    expected |= {
        "mean": np.mean(values),
        "std": np.std(values),
        "min": min(values),
        "max": max(values),
    }
    assert list(summary) == ["mean", "std", "median", "min", "p5", "p95", "max"]
    assert summary == pytest.approx(expected, rel=1e-9, abs=1e-6)


def test_infinities_keep_their_place_but_not_the_mean() -> None:
    summary = summarise([30.0, math.inf, 40.0])
    assert (summary["mean"], summary["std"]) == (35.0, 5.0)
    assert (summary["min"], summary["median"], summary["max"]) == (30.0, 40.0, math.inf)
    everywhere = summarise([math.inf] * 3)
    assert everywhere.pop("std") == 0.0
    assert set(everywhere.values()) == {math.inf}


def test_nothing_and_nan_are_refused() -> None:
    with pytest.raises(ValueError, match="no values"):
        summarise([])
    with pytest.raises(ValueError, match="NaN"):
        summarise([1.0, math.nan])
