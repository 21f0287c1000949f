"""The options that only roundtrip has: what it measures, and the files that it writes."""

from __future__ import annotations

from typing import Annotated

from latentcli.cli.options import MODEL_HELP
from latentcli.cli.setting import Number, setting

Models = Annotated[
    list[str] | None,
    setting(
        "model",
        f"{MODEL_HELP} NAME=PATH gives its weights. Repeat to compare several. Default: fcdm_nano.",
        "--model",
    ),
]
Baseline = Annotated[
    str | None,
    setting(
        "baseline",
        "One more model, that the others are compared with. Default: the first --model.",
    ),
]
Metrics = Annotated[
    list[str] | None,
    setting(
        "metrics",
        "What is measured, repeated or with commas: psnr,ssim,ssim_gaussian (default), ms_ssim;"
        " with latentcli[metrics] also lpips, lpips_vgg and, of the whole set, rfid.",
        metavar="NAME",
    ),
]
MetricWeights = Annotated[
    list[str] | None,
    setting(
        "metric_weights",
        "NAME=PATH: file of the network of lpips, lpips_vgg or rfid. Default: torch's cache.",
        metavar="NAME=PATH",
    ),
]
Save = Annotated[
    str | None,
    setting(
        "save",
        "Write the reconstructions here, one folder per model. Default: write none.",
        metavar="DIR",
    ),
]
Csv = Annotated[
    str | None,
    setting("csv", "Write a line of figures per image to this file. Default: no.", metavar="FILE"),
]
Report = Annotated[
    str | None,
    setting(
        "report",
        "Write a page here that shows every image, what came back, the differences and the"
        " latents; open DIR/index.html. Default: none.",
        metavar="DIR",
    ),
]
DifferenceGain = Annotated[
    Number,
    setting(
        "difference_gain",
        "What the report's pictures of differences are multiplied by. Default: 4.",
        metavar="X",
    ),
]
