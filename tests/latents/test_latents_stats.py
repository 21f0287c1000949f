from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from latentcli.latents.stats import ChannelSums


def sums_of(latents: torch.Tensor, cuts: list[int] = ()) -> ChannelSums:
    sums = ChannelSums()
    for batch in latents.tensor_split(sorted(cuts)):
        sums.add(batch)
    return sums


@settings(max_examples=40)
@given(st.integers(1, 9), st.lists(st.integers(0, 9), max_size=4), st.floats(-1e4, 1e4))
def test_the_same_whatever_the_batches(count, cuts, offset):
    latents = torch.randn(count, 3, 4, 5, generator=torch.Generator().manual_seed(count)) + offset
    whole = sums_of(latents)
    assert sums_of(latents, cuts).to_json() == whole.to_json()
    exact = latents.double().transpose(0, 1).flatten(1)
    assert whole.count == count * 20
    assert whole.mean == pytest.approx(exact.mean(1).tolist(), rel=1e-12, abs=1e-12)
    assert whole.std == pytest.approx(exact.std(1, correction=0).tolist(), rel=1e-9)


def test_the_same_whatever_the_batches_and_layout_at_full_size():
    latents = torch.randn(40, 64, 15, 17)
    whole = sums_of(latents).to_json()
    assert sums_of(latents, [1, 8, 31]).to_json() == whole
    assert sums_of(latents.contiguous(memory_format=torch.channels_last)).to_json() == whole


def test_the_same_whatever_the_threads():
    latents = torch.randn(16, 64, 16, 16).bfloat16()
    threads = torch.get_num_threads()
    try:
        results = []
        for number in (1, 2):
            torch.set_num_threads(number)
            results.append(sums_of(latents).to_json())
    finally:
        torch.set_num_threads(threads)
    assert results[0] == results[1]


def test_merged_sums_are_those_of_everything():
    latents = torch.randn(10, 3, 2, 7) * 5 + 100
    parts = [sums_of(part) for part in latents.split([4, 1, 5])]
    merged = ChannelSums()
    merged.merge(ChannelSums())
    for part in parts:
        merged.merge_json(json.loads(json.dumps(part.to_json())))
    whole = sums_of(latents)
    assert merged.count == whole.count
    assert merged.mean == pytest.approx(whole.mean, rel=1e-13)
    assert merged.std == pytest.approx(whole.std, rel=1e-12)


def test_json_is_bit_for_bit():
    sums = sums_of(torch.randn(3, 5, 2, 2))
    assert ChannelSums.from_json(json.loads(json.dumps(sums.to_json()))).to_json() == sums.to_json()


def test_no_cancellation_far_from_zero():
    latents = 1e6 + torch.randint(0, 2, (50, 1, 8, 8)).float()
    assert sums_of(latents).std == pytest.approx(
        [latents.double().std(correction=0).item()], rel=1e-9
    )


def test_nothing_yet():
    sums = ChannelSums()
    assert (sums.mean, sums.std, sums.summary()) == ([], [], None)
    sums.add(torch.zeros(0, 3, 2, 2))
    assert sums.summary() is None


def test_what_does_not_fit_is_refused():
    sums = sums_of(torch.zeros(1, 3, 2, 2))
    with pytest.raises(ValueError, match="4 channels, those before 3"):
        sums.add(torch.zeros(1, 4, 2, 2))
    with pytest.raises(ValueError, match="count, mean and m2"):
        ChannelSums.from_json({"count": 3})
    with pytest.raises(ValueError, match="different lengths"):
        ChannelSums.from_json({"count": 3, "mean": [1.0], "m2": []})
