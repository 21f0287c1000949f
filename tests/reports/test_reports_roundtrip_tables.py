"""A roundtrip's document becomes tables that lose none of its figures."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console, RenderableType

from latentcli.reports.roundtrip_tables import pictures_text, roundtrip_tables, settings_text

FIGURES = {"mean": 33.456, "std": 1.5, "median": 33.0, "min": 30.0, "p5": 30.5, "p95": 35.0}
DOCUMENT: dict[str, Any] = {
    "images": 1234,
    "measures": [
        {"name": "psnr", "label": "PSNR", "unit": "dB", "digits": 2},
        {"name": "ssim", "label": "SSIM", "unit": "", "digits": 4},
        {"name": "rfid", "label": "rFID", "unit": "", "digits": 2},
    ],
    "models": [
        {
            "model": "one",
            "geometry": "f16c128",
            "psnr": {**FIGURES, "max": None},
            "ssim": None,
            "worst": [{"key": "a", "index": 3, "psnr": 30.0}, {"key": "b", "index": 0, "psnr": 31}],
            "best": [{"key": "c", "index": 1, "psnr": None}],
        },
        {
            "model": "two",
            "geometry": "f32c384",
            "psnr": {**FIGURES, "max": 36.0},
            "ssim": {"mean": 0.91234},
            "rfid": 4.567,
        },
    ],
    "delta": [
        {
            "model": "two",
            "against": "one",
            "psnr": {**FIGURES, "mean": 0.5, "std": 0.25, "min": -1.0, "max": 3},
            "ssim": {"mean": -0.01},
            "latent_cosine": {"mean": 0.25},
        }
    ],
    "settings": {
        "size": None,
        "divisor": 32,
        "dtype": "bf16",
        "steps": 10,
        "sampler": "ddim",
        "pdg": True,
        "pdg_strength": 2.0,
        "seed": 3,
    },
}


def text(*items: RenderableType) -> str:
    stream = io.StringIO()
    console = Console(file=stream, width=1000)
    for item in items:
        console.print(item)
    return stream.getvalue()


def test_every_figure_and_its_sign() -> None:
    shown = text(*roundtrip_tables(DOCUMENT))
    lines = [line.split() for line in shown.splitlines()]
    figures = ["33.46", "1.50", "33.00", "30.00", "30.50", "35.00"]
    assert ["one", "f16c128", *figures, "inf"] in lines
    assert ["two", "f32c384", *figures, "36.00", "0.9123", "4.57"] in lines
    differences = ["+0.50", "0.25", "+33.00", "-1.00", "+30.50", "+35.00", "+3.00"]
    assert ["two", *differences, "-0.0100", "0.2500"] in lines
    assert "PSNR in dB of 1,234 images" in shown and "Difference to one" in shown
    assert "one: worst a 30.00, b 31.00; best c inf" in shown


def test_a_column_that_no_model_fills_is_left_out() -> None:
    plain = DOCUMENT | {"models": DOCUMENT["models"][:1], "delta": None}
    shown = text(*roundtrip_tables(plain))
    assert "cosine" not in shown and "rFID   " not in shown and "Difference" not in shown


def test_settings() -> None:
    assert settings_text(DOCUMENT) == (
        "own size cropped to multiples of 32, bf16, 10 ddim steps, path-drop guidance 2.0, seed 3,"
        " 8-bit pixels"
    )
    plain = {"settings": {"size": "64x32", "dtype": "fp32", "steps": None}}
    assert settings_text(plain) == "64x32, fp32, 8-bit pixels"
    plain["settings"] |= {"size": None, "divisor": 16}
    plain["settings"]["buckets"] = {"rule": "area", "table": [[256, 512], [512, 256]]}
    assert settings_text(plain).startswith("2 buckets (area rule), fp32")


def test_what_the_figures_are_of() -> None:
    assert pictures_text({"images": 1}) == "1 image"
    assert pictures_text({"media": "clips", "images": 40, "clips": 1}) == "40 frames of 1 clip"


def test_clips() -> None:
    clips = [
        {"model": "one", "psnr": {"mean": 30.0}, "psnr_pooled": {"mean": 29.5}, "temporal": None}
    ]
    shown = text(*roundtrip_tables(DOCUMENT | {"clip_figures": clips}))
    assert ["one", "30.00", "29.50"] in [line.split() for line in shown.splitlines()]
