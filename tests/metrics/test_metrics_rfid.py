"""rFID streams into the distance that scipy's formula gives of all features at once."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import Tensor

pytest.importorskip("torchmetrics")
from latentcli.metrics.perceptual import FrechetInception

CPU = torch.device("cpu")


class Averages(torch.nn.Module):
    """Features of an image: the means of its channels in four quarters, 12 numbers."""

    num_features = 12

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        assert images.dtype == torch.uint8
        self.calls.append(len(images))
        return torch.nn.functional.adaptive_avg_pool2d(images.float(), 2).flatten(1) / 8


def pictures(count: int, seed: int, spread: int = 40) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    base = torch.randint(60, 180, (count, 3, 2, 2), generator=rng).float()
    noise = torch.randint(-spread, spread, (count, 3, 16, 16), generator=rng)
    return (torch.nn.functional.interpolate(base, size=16) + noise).clamp(0, 255).byte()


def formula(real: Tensor, fake: Tensor) -> float:
    x, y = (Averages()(images).double().numpy() for images in (real, fake))
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    mean = np.square(x.mean(0) - y.mean(0)).sum()
    return float(mean + np.trace(a + b - 2 * sqrtm(a @ b).real))


def test_equals_scipy_however_it_streams() -> None:
    real = pictures(300, 0)
    fakes = [pictures(300, 1), (real.int() + 3).clamp(0, 255).byte(), pictures(200, 2, 90)]
    network = Averages()
    rfid = FrechetInception(network, CPU, len(fakes))
    for first in range(0, 300, 70):
        rfid.add_real(real[first : first + 70])
        for model, fake in enumerate(fakes):
            rfid.add_fake(model, fake[first : first + 70])
    for model, fake in enumerate(fakes):
        found = rfid.value(model)
        assert found.value == pytest.approx(formula(real, fake), rel=1e-6)
        assert found.note is None
    assert sum(network.calls) == 4 * 300 - 100, "the originals are seen once"
    assert max(network.calls) <= 64


def test_a_value_in_between_does_not_stay() -> None:
    real, fake = pictures(120, 0), pictures(120, 1)
    rfid = FrechetInception(Averages(), CPU, 1)
    rfid.add_real(real[:60])
    rfid.add_fake(0, fake)
    assert rfid.value(0).value == pytest.approx(formula(real[:60], fake), rel=1e-6)
    rfid.add_real(real[60:])
    assert rfid.value(0).value == pytest.approx(formula(real, fake), rel=1e-6)


def test_equal_sets_are_at_no_distance() -> None:
    real = pictures(50, 0)
    rfid = FrechetInception(Averages(), CPU, 1)
    rfid.add_real(real)
    rfid.add_fake(0, real.flip(0))
    found = rfid.value(0).value
    assert found is not None and 0 <= found < 1e-5


@pytest.mark.parametrize("count", [2, 5, 11])
def test_few_images_give_a_figure_and_a_note(count: int) -> None:
    rfid = FrechetInception(Averages(), CPU, 1)
    rfid.add_real(pictures(count, 0))
    rfid.add_fake(0, pictures(count, 1))
    found = rfid.value(0)
    assert found.value is not None and math.isfinite(found.value) and found.value > 0
    assert found.note is not None and f"of {count} images: with fewer than 12" in found.note


@pytest.mark.parametrize("count", [0, 1])
def test_a_single_image_gives_no_figure(count: int) -> None:
    rfid = FrechetInception(Averages(), CPU, 1)
    rfid.add_real(pictures(3, 0))
    rfid.add_fake(0, pictures(count, 1))
    found = rfid.value(0)
    assert found.value is None
    assert found.note == f"rFID needs two images; there are {count}."
