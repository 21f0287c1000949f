"""The Frechet distance equals closed forms and scipy's, and streams without a trace of how."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from latentcli.metrics.frechet import FeatureSums, frechet_distance


def sums(rows: np.ndarray, *cuts: int) -> FeatureSums:
    found = FeatureSums(rows.shape[1])
    for part in np.split(rows, sorted(cuts)):
        found.add(torch.from_numpy(part))
    return found


def features(seed: int, count: int, dim: int, spread: float = 1.0) -> np.ndarray:
    """Correlated vectors about a mean of their own."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(count, dim)) @ rng.normal(size=(dim, dim)) * spread
    return mixed + 3 * rng.normal(size=dim)


def reference(x: np.ndarray, y: np.ndarray, centred: bool = True) -> float:
    """The formula by scipy, from the whole sets."""
    mean = x.mean(0), y.mean(0)
    first, second = (
        rows.T @ rows / len(rows) - centred * np.outer(m, m)
        for rows, m in zip((x, y), mean, strict=True)
    )
    root = scipy.linalg.sqrtm(first @ second)
    trace = np.trace(first) + np.trace(second) - 2 * np.trace(root).real
    return float(((mean[0] - mean[1]) ** 2).sum() + trace)


def by_data(x: np.ndarray, y: np.ndarray) -> float:
    """The same from the centred vectors themselves, which needs no covariance and no root."""
    a, b = ((rows - rows.mean(0)) / np.sqrt(len(rows)) for rows in (x, y))
    cross = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    shift = ((x.mean(0) - y.mean(0)) ** 2).sum()
    return float(shift + (a**2).sum() + (b**2).sum() - 2 * cross)


@pytest.mark.parametrize("dim", [1, 2, 7, 16, 64])
@pytest.mark.parametrize("compat", ["centred", "uncentred"])
def test_equals_scipy(dim: int, compat: str) -> None:
    for seed in range(10):
        x = features(seed, 4 * dim + 5, dim)
        y = features(seed + 100, 5 * dim + 3, dim, 1.5)
        found = frechet_distance(sums(x), sums(y), compat)
        assert found == pytest.approx(reference(x, y, compat == "centred"), rel=1e-8)


@pytest.mark.slow
def test_equals_scipy_at_the_giants_width() -> None:
    x, y = features(0, 3000, 1408), features(1, 2900, 1408)
    assert frechet_distance(sums(x), sums(y)) == pytest.approx(reference(x, y), rel=1e-8)


@pytest.mark.parametrize(("first", "second", "dim"), [(2, 3, 8), (10, 40, 32), (20, 90, 64)])
def test_fewer_vectors_than_dimensions(first: int, second: int, dim: int) -> None:
    x, y = features(0, first, dim), features(1, second, dim)
    assert frechet_distance(sums(x), sums(y)) == pytest.approx(by_data(x, y), rel=1e-8)


def test_closed_forms() -> None:
    """Of covariances that commute: the sum over axes of (mean difference)^2 + (s1 - s2)^2."""
    # Rows of +s and -s along each axis in turn have the covariance diag(s^2 / D) exactly.
    s1, s2, shift = np.array([[1.0, 2, 3], [5, 0.5, 3], [4, 0, -1]])
    rows = [np.concatenate([np.diag(s), -np.diag(s)]) for s in (s1, s2)]
    expected = (shift**2).sum() + ((s1 - s2) ** 2 / 3).sum()
    found = frechet_distance(sums(rows[0]), sums(rows[1] + shift))
    assert found == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("count", [1, 2, 5, 200])
def test_identical_and_shifted_sets(count: int) -> None:
    x = features(3, count, 24)
    assert frechet_distance(sums(x), sums(x)) == 0
    moved = frechet_distance(sums(x), sums(x + 2))
    assert moved == pytest.approx(4 * 24, rel=1e-10)
    constant = np.ones((3, 4))
    assert frechet_distance(sums(constant), sums(constant * 3)) == 16


def test_uncentred_is_another_figure() -> None:
    x, y = features(0, 500, 16), features(1, 500, 16)
    centred, raw = (frechet_distance(sums(x), sums(y), c) for c in ("centred", "uncentred"))
    assert abs(raw - centred) > 0.01 * centred
    about = [rows - rows.mean(0) for rows in (x, y)]
    both = [frechet_distance(sums(about[0]), sums(about[1]), c) for c in ("centred", "uncentred")]
    assert both[0] == pytest.approx(both[1], rel=1e-9)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(2, 40), st.integers(2, 40))
def test_properties(seed: int, dim: int, first: int, second: int) -> None:
    x, y = features(seed, first, dim), features(seed + 1, second, dim)
    found = frechet_distance(sums(x), sums(y))
    assert found >= 0
    close = {"rel": 1e-7, "abs": 1e-9}
    assert frechet_distance(sums(y), sums(x)) == pytest.approx(found, **close)
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(dim, dim)))[0]
    assert frechet_distance(sums(x @ turn), sums(y @ turn)) == pytest.approx(found, **close)
    shuffled = np.random.default_rng(seed).permutation(x)
    cut = sums(shuffled, first // 3, first // 2)
    assert frechet_distance(cut, sums(y)) == pytest.approx(found, **close)


def test_chunks_far_from_zero_lose_nothing() -> None:
    """E[f f^T] - mu mu^T would have no correct digit here."""
    x = np.random.default_rng(0).normal(size=(900, 5))
    found = sums(x + 1e7, 1, 100, 101, 500)
    wanted = np.cov(x + 1e7, rowvar=False, bias=True)
    assert found.count == 900
    assert found.covariance.numpy() == pytest.approx(wanted, rel=1e-7, abs=1e-8)


def test_wrong_features_are_refused() -> None:
    found = FeatureSums(3)
    with pytest.raises(ValueError, match=r"must be \[N, 3\]"):
        found.add(torch.zeros(2, 4))
    with pytest.raises(ValueError, match="not finite"):
        found.add(torch.tensor([[1.0, float("nan"), 0]]))
    found.add(torch.zeros(0, 3))
    with pytest.raises(ValueError, match="there are no features"):
        frechet_distance(found, found)
    with pytest.raises(ValueError, match="both must have the same number"):
        frechet_distance(found, FeatureSums(4))
    with pytest.raises(ValueError, match="allowed are centred, uncentred"):
        frechet_distance(found, found, "other")


def test_features_whose_squares_overflow():
    huge = sums(features(0, 20, 3) * 1e200)
    with pytest.raises(ValueError, match="so large"):
        frechet_distance(huge, sums(features(1, 20, 3)))
