"""Figures are summed up as numpy sums them up."""

from __future__ import annotations

from array import array

import numpy as np
import pytest
import torch

from latentcli.jobs.roundtrip.figures import (
    ModelFigures,
    differences,
    extremes,
    latent_summary,
    rounded,
)
from latentcli.latents.stats import ChannelSums

INF = float("inf")


def test_back_to_a_mark():
    of_model = ModelFigures.of(["psnr", "ssim"])
    of_model.add({"psnr": [1.0, 2.0]}, torch.ones(2, 3, 2, 2), {"latent_cosine": [0.5, 0.5]})
    mark = of_model.mark()
    late = {"latent_cosine": [0.1], "latent_cosine_per_position": [0.2]}
    of_model.add({"psnr": [9.0], "ssim": [1.0]}, torch.zeros(1, 3, 2, 2), late)
    assert list(of_model.figures["psnr"]) == [1, 2, 9]
    assert of_model.latents.mean == pytest.approx([2 / 3] * 3)
    of_model.back_to(mark)
    assert list(of_model.figures["psnr"]) == [1.0, 2.0] and not of_model.figures["ssim"]
    assert [len(values) for values in of_model.alike.values()] == [2, 0]
    assert of_model.latents.mean == [1.0] * 3


def test_the_ends_are_named_in_order():
    values = array("d", [5, 1, INF, 3, 4, 2])
    assert extremes(values, higher_is_better=True) == {"worst": [1, 5, 3], "best": [2, 0, 4]}
    assert extremes(values, higher_is_better=False)["worst"] == [2, 0, 4]
    assert extremes(array("d", [7]), higher_is_better=True) == {"worst": [0], "best": [0]}
    assert extremes(array("d", [7, 3, 5]), higher_is_better=True) == {"worst": [1], "best": [0]}


def test_identical_pictures_differ_by_nothing():
    assert differences(array("d", [INF, INF, 3]), array("d", [INF, 30, 1])) == [0.0, INF, 2.0]


def test_infinities_are_null():
    assert rounded([INF, 30.0])["max"] is None
    assert rounded(array("d")) is None


def test_latent_summary_is_that_of_all_values():
    latents = torch.randn(5, 4, 3, 6, generator=torch.Generator().manual_seed(0)) * 2 + 1
    sums = ChannelSums()
    sums.add(latents)
    found, values = latent_summary(sums), latents.double().numpy()
    assert found["mean"] == pytest.approx(values.mean(), abs=1e-6)
    assert found["std"] == pytest.approx(values.std(), abs=1e-6)
    np.testing.assert_allclose(found["channel_std"], values.std(axis=(0, 2, 3)), atol=1e-6)
    assert latent_summary(ChannelSums()) is None
