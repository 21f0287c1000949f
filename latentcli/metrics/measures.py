"""Opens measures by their names, and says what a table needs to know of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from latentcli.core.errors import UsageError
from latentcli.metrics.ms_ssim import LEAST_SIDE, ms_ssim
from latentcli.metrics.perceptual import (
    BACKBONES,
    LEAST_SIDES,
    FrechetInception,
    open_lpips,
    open_rfid,
)
from latentcli.metrics.psnr import psnr
from latentcli.metrics.ssim import WINDOWS, ssim

NAMES = ("psnr", "ssim", "ssim_gaussian", "ms_ssim", "lpips", "lpips_vgg", "rfid")
"""All that --metrics takes."""


@dataclass(frozen=True, slots=True)
class Measure:
    """Compares each original with its reconstruction."""

    name: str
    """The key of documents, the column of a CSV, the word of --metrics."""
    label: str
    """As a person writes it."""
    unit: str
    """dB, or nothing."""
    digits: int
    """Decimals in tables."""
    higher_is_better: bool
    least_side: int
    """The shortest side of an image that it can be measured of."""
    protocol: str
    """One plain sentence of what it is, for the settings of a document."""
    score: Callable[[Tensor, Tensor], Tensor]
    """uint8 [N, 3, H, W] twice, on one device, to float64 [N] there."""


SetMeasure = FrechetInception
"""Compares the originals with the reconstructions of each model as two sets."""

MEASURES: dict[str, Measure] = {
    measure.name: measure
    for measure in (
        Measure(
            *("psnr", "PSNR", "dB", 2, True, 1),
            "per image, clamped, rounded to 8 bits, peak 255",
            psnr,
        ),
        Measure(
            *("ssim", "SSIM", "", 4, True, WINDOWS["uniform"].side),
            "per image, 7x7 uniform windows, sample covariance (scikit-image's default)",
            ssim,
        ),
        Measure(
            *("ssim_gaussian", "SSIM gauss", "", 4, True, WINDOWS["gaussian"].side),
            "per image, 11x11 Gaussian windows, sigma 1.5 (the paper's)",
            partial(ssim, window="gaussian"),
        ),
        Measure(
            *("ms_ssim", "MS-SSIM", "", 4, True, LEAST_SIDE),
            "per image, five scales, 11x11 Gaussian windows, sigma 1.5, the paper's powers"
            " (pytorch-msssim's figures)",
            ms_ssim,
        ),
    )
}
"""The measures that need no weights."""

_LPIPS = {"lpips": "LPIPS", "lpips_vgg": "LPIPS (VGG)"}
"""Labels."""


def open_measures(
    names: Sequence[str], device: torch.device, weights: Mapping[str, str] | None = None
) -> list[Measure]:
    """The measures of single images among `names`, each once, in that order.

    `weights` names files of the networks of LPIPS and rFID. A network is loaded once, onto the
    device. UsageError for an unknown name or a missing package, WeightsError for missing weights.
    """
    files = _checked(names, weights)
    return [
        MEASURES.get(name) or _open_lpips(name, device, files)
        for name in dict.fromkeys(names)
        if name in MEASURES or name in _LPIPS
    ]


def open_set_measures(
    names: Sequence[str],
    device: torch.device,
    weights: Mapping[str, str] | None = None,
    *,
    models: int = 1,
) -> list[SetMeasure]:
    """The measures of whole sets among `names`, for the reconstructions of `models` models.

    Errors are those of `open_measures`.
    """
    files = _checked(names, weights)
    return [open_rfid(device, files, models)] if "rfid" in names else []


def _open_lpips(name: str, device: torch.device, weights: Mapping[str, str]) -> Measure:
    protocol = (
        f"per image, torchmetrics' LPIPS 0.1, {BACKBONES[name].network}, at the image's own size"
    )
    score = open_lpips(name, device, weights)
    return Measure(name, _LPIPS[name], "", 4, False, LEAST_SIDES[name], protocol, score)


def _checked(names: Sequence[str], weights: Mapping[str, str] | None) -> Mapping[str, str]:
    for name in names:
        if name not in NAMES:
            raise UsageError(f"There is no measure {name!r}; allowed are {', '.join(NAMES)}.")
    for name in weights or {}:
        if name not in BACKBONES:
            allowed = ", ".join(BACKBONES)
            raise UsageError(f"--metric-weights {name}: allowed are {allowed}, as NAME=PATH.")
    return weights or {}
