"""Names give measures that score as their functions do; what cannot be had is said in words."""

from __future__ import annotations

import math

import pytest
import torch

from latentcli.core.errors import UsageError
from latentcli.core.options import options_of
from latentcli.jobs.config import RoundtripJob
from latentcli.metrics.measures import MEASURES, NAMES, open_measures, open_set_measures
from latentcli.metrics.ms_ssim import ms_ssim
from latentcli.metrics.perceptual import BACKBONES
from latentcli.metrics.psnr import psnr
from latentcli.metrics.ssim import ssim

CPU = torch.device("cpu")


def test_names_are_those_that_need_weights_and_those_that_do_not() -> None:
    assert (*MEASURES, *BACKBONES) == NAMES
    assert all(measure.name == name for name, measure in MEASURES.items())
    assert set(RoundtripJob().metrics) <= set(MEASURES)


def test_the_command_line_takes_the_same_names() -> None:
    assert options_of(RoundtripJob)["metrics"].choices == NAMES


def test_measures_score_as_their_functions_do() -> None:
    a = torch.randint(0, 256, (2, 3, 170, 180), dtype=torch.uint8)
    b = (a.int() + torch.randint(-9, 9, a.shape)).clamp(0, 255).byte()
    measures = open_measures(("ms_ssim", "ssim_gaussian", "psnr", "ssim", "psnr"), CPU)
    expected = {
        "ms_ssim": ms_ssim(a, b),
        "ssim_gaussian": ssim(a, b, "gaussian"),
        "psnr": psnr(a, b),
        "ssim": ssim(a, b),
    }
    assert [measure.name for measure in measures] == list(expected)
    for measure in measures:
        scores = measure.score(a, b)
        assert scores.dtype == torch.float64
        assert torch.equal(scores, expected[measure.name])


@pytest.mark.parametrize("name", list(MEASURES))
def test_least_side_is_the_shortest_that_can_be_measured(name: str) -> None:
    measure = MEASURES[name]
    a = torch.randint(0, 256, (1, 3, measure.least_side, 200), dtype=torch.uint8)
    assert not math.isnan(measure.score(a, a).item())
    if measure.least_side > 1:
        with pytest.raises(ValueError, match="needs at least"):
            measure.score(a[:, :, 1:], a[:, :, 1:])


def test_measures_of_sets_are_opened_apart() -> None:
    assert open_set_measures(RoundtripJob().metrics, CPU) == []
    assert open_measures(("rfid", "psnr"), CPU) == [MEASURES["psnr"]]


@pytest.mark.parametrize("open_them", [open_measures, open_set_measures])
def test_unknown_names_are_refused(open_them) -> None:
    with pytest.raises(UsageError, match="no measure 'sim'; allowed are psnr, ssim,"):
        open_them(("psnr", "sim"), CPU)
    with pytest.raises(UsageError, match="--metric-weights psnr: allowed are lpips, lpips_vgg, rf"):
        open_them(("psnr",), CPU, {"psnr": "x.pth"})
