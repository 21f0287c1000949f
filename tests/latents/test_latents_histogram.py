"""Counts of values: those of numpy, whatever lies outside, and a range that fits the values."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from latentcli.latents.histogram import Range, ValueHistogram, range_of


def test_counts_are_those_of_numpy():
    latents = torch.randn(5, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    found = ValueHistogram(3, Range(-1.0, 1.5), 20)
    found.add(latents[:2])
    found.add(latents[2:])
    for channel in range(3):
        values = latents[:, channel].double().numpy()
        inside = values[(values >= -1) & (values < 1.5)]
        expected, _ = np.histogram(inside, 20, (-1.0, 1.5))
        assert found.counts[channel].tolist() == expected.tolist()
        assert found.below[channel] == (values < -1).sum()
        assert found.above[channel] == (values >= 1.5).sum()
        assert found.least[channel] == values.min() and found.most[channel] == values.max()
    every = found.to_json()
    assert sum(every["counts"]) + every["below"] + every["above"] == latents.numel()
    assert found.to_json(1)["counts"] == found.counts[1].tolist()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(width=32), min_size=1, max_size=60))
def test_every_value_is_counted_once(values):
    found = ValueHistogram(1, range_of(values), 7)
    found.add(torch.tensor(values).view(1, 1, 1, -1))
    finite = [v for v in values if math.isfinite(v)]
    told = found.to_json()
    assert sum(told["counts"]) + told["below"] + told["above"] == len(finite)
    assert found.nan[0] == sum(map(math.isnan, values))
    assert found.infinite[0] == sum(map(math.isinf, values))
    if finite:
        assert found.least[0] == min(finite) and found.most[0] == max(finite)
    else:
        assert found.least[0] == math.inf


def test_the_range_holds_nearly_all_values_and_passes_outliers_by():
    values = np.random.default_rng(0).standard_normal(10_000) * 3 + 1
    span = range_of([*values, 1e20, math.nan, -math.inf])
    assert -16 < span.low < -9 and 11 < span.high < 18
    assert ((values >= span.low) & (values < span.high)).mean() > 0.999


@pytest.mark.parametrize("values", [[], [math.nan], [0.0, 0.0], [7.25], [1e20, 1e20], [-1e-30]])
def test_there_is_always_a_range(values):
    span = range_of(values)
    assert span.low < span.high
    if values and math.isfinite(values[0]):
        assert span.low <= values[0] < span.high


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="upwards"):
        Range(1.0, 1.0)
    with pytest.raises(ValueError, match="nothing to count"):
        ValueHistogram(0, Range(0.0, 1.0))
    with pytest.raises(ValueError, match="2 channels, not 3"):
        ValueHistogram(3, Range(0.0, 1.0)).add(torch.zeros(1, 2, 1, 1))
