"""Figures of a clip equal their definitions, however the clip is cut into chunks."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from latentcli.metrics.temporal import ClipMeasure


def clips(frames: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 256, (2, frames, 3, 6, 5), dtype=np.uint8)
    return torch.from_numpy(a), torch.from_numpy(b)


def measured(a: torch.Tensor, b: torch.Tensor, *cuts: int) -> dict[str, float | None]:
    measure = ClipMeasure()
    bounds = [0, *sorted(cuts), len(a)]
    for start, stop in pairwise(bounds):
        if stop > start:
            measure.add(a[start:stop], b[start:stop])
    return measure.figures()


@given(st.integers(2, 9), st.lists(st.integers(0, 9), max_size=4), st.integers(0, 99))
def test_equals_the_formula_in_any_chunks(frames: int, cuts: list[int], seed: int) -> None:
    a, b = clips(frames, seed)
    x, y = a.numpy().astype(float), b.numpy().astype(float)
    each = [10 * math.log10(255**2 / ((p - q) ** 2).mean()) for p, q in zip(x, y, strict=True)]
    found = measured(a, b, *(min(cut, frames) for cut in cuts))
    assert found["psnr"] == pytest.approx(np.mean(each), abs=1e-10)
    pooled = 10 * math.log10(255**2 / ((x - y) ** 2).mean())
    assert found["psnr_pooled"] == pytest.approx(pooled, abs=1e-10)
    consistency = np.abs(np.diff(y, axis=0) - np.diff(x, axis=0)).mean()
    assert found["temporal"] == pytest.approx(consistency, abs=1e-12)
    assert found["motion"] == pytest.approx(np.abs(np.diff(x, axis=0)).mean(), abs=1e-12)


def test_known_values() -> None:
    original = torch.zeros(4, 3, 2, 2, dtype=torch.uint8)
    steady = original + 7
    assert measured(original, steady)["temporal"] == 0
    flicker = original.clone()
    flicker[1::2] = 255
    found = measured(original, flicker, 1, 2, 3)
    assert found["temporal"] == 255
    assert found["motion"] == 0
    assert found["psnr"] == 0  # identical frames are left out of the mean
    assert found["psnr_pooled"] == pytest.approx(10 * math.log10(2))
    # The largest step there is: an error of 255 up, then of 255 down.
    a = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 1, 1)
    assert measured(a, 255 - a)["temporal"] == 510


def test_identical_clips_and_one_frame() -> None:
    a, b = clips(3)
    same = measured(a, a)
    assert (same["psnr"], same["psnr_pooled"], same["temporal"]) == (math.inf, math.inf, 0)
    one = measured(a[:1], b[:1])
    assert one["temporal"] is None and one["motion"] is None
    assert one["psnr"] == one["psnr_pooled"]


def test_wrong_frames_are_refused() -> None:
    a, b = clips(2)
    measure = ClipMeasure()
    with pytest.raises(ValueError, match="no frames"):
        measure.figures()
    with pytest.raises(ValueError, match="uint8"):
        measure.add(a.float(), b)
    with pytest.raises(ValueError, match=r"not two \[T, 3, H, W\]"):
        measure.add(a, b[:1])
    measure.add(a, b)
    with pytest.raises(ValueError, match="those before were"):
        measure.add(a[..., :3], b[..., :3])
