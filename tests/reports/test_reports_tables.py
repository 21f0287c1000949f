"""Documents become tables that lose nothing, wherever they are printed."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console, RenderableType

from latentcli.reports import tables

FIGURES = {"mean": 33.456, "std": 1.5, "median": 33.0, "min": 30.0, "p5": 30.5, "p95": 35.0}
ROUNDTRIP: dict[str, Any] = {
    "images": 24,
    "models": [
        {"model": "one", "geometry": "f16c128", "psnr": {**FIGURES, "max": None}, "ssim": None},
        {
            "model": "two",
            "geometry": "f32c384",
            "psnr": {**FIGURES, "max": 36.0},
            "ssim": {"mean": 0.91234},
        },
    ],
    "delta": [{"model": "two", "against": "one", "psnr": {"mean": 0.5, "std": 0.25}}],
    "settings": {
        "size": None,
        "divisor": 32,
        "steps": 10,
        "sampler": "ddim",
        "pdg": True,
        "pdg_strength": 2.0,
        "seed": 3,
    },
}
MODEL = {
    "name": "semdisdiffae",
    "parameters": 88_771_328,
    "latent_channels": 128,
    "downscale": 16,
    "size_divisor": 16,
    "latent_space": "data-archetype/semdisdiffae",
    "can_encode": False,
    "can_decode": True,
    "weights": "hub",
    "licence": "[not markup]",
}


def text(*items: RenderableType, width: int = 1000) -> str:
    stream = io.StringIO()
    console = Console(file=stream, width=width, markup=True)
    for item in items:
        console.print(item)
    return stream.getvalue()


def test_roundtrip() -> None:
    lines = [line.split() for line in text(*tables.roundtrip_tables(ROUNDTRIP)).splitlines()]
    figures = ["33.46", "1.50", "33.00", "30.00", "30.50", "35.00"]
    assert ["one", "f16c128", *figures, "inf"] in lines
    assert ["two", "f32c384", *figures, "36.00", "0.9123"] in lines
    assert ["two", "one", "+0.50", "0.25"] in lines


def test_roundtrip_settings() -> None:
    assert tables.settings_text(ROUNDTRIP) == (
        "own size cropped to multiples of 32, 10 ddim steps, path-drop guidance 2.0, seed 3"
    )


def test_models() -> None:
    row = text(tables.models_table([MODEL])).splitlines()[-1].split()
    assert row == [
        *("semdisdiffae", "88.8M", "f16c128", "16", "data-archetype/semdisdiffae"),
        *("decode", "hub", "[not", "markup]"),
    ]


def test_a_narrow_terminal_folds_and_loses_nothing() -> None:
    shown = text(tables.models_table([MODEL]), width=60)
    assert max(map(len, shown.splitlines())) <= 60
    assert "…" not in shown
    assert "88.8M" in shown


@pytest.mark.parametrize(
    ("number", "told"), [(4_707_840, "4.7M"), (132_976, "133K"), (114_690_816, "114.7M")]
)
def test_parameters(number: int, told: str) -> None:
    assert tables.parameters(number) == told


def bench_row(**changes: Any) -> dict[str, Any]:
    row = {
        "model": "m",
        "op": "encode",
        "resolution": "64x64",
        "batch": 2,
        "ms_per_batch": 12.345,
        "images_per_second": 1620.7,
        "peak_memory_mib": None,
        "speedup": None,
        "memory_reduction": None,
    }
    return row | changes


def test_bench_with_and_without_a_baseline() -> None:
    document = {"device": "cpu", "dtype": "fp32", "rows": [bench_row()]}
    shown = text(*tables.bench_tables(document))
    assert "12.35" in shown or "12.34" in shown
    assert "1,620.7" in shown
    assert "speedup" not in shown
    document["rows"] = [bench_row(speedup=2.5, memory_reduction=0.25, peak_memory_mib=100.2)]
    last = text(*tables.bench_tables(document)).splitlines()[-1].split()
    assert last[-3:] == ["100", "2.50", "25%"]


def test_stages() -> None:
    document = {
        "stages": {"read": {"seconds": 0.5, "items": 10, "per_second": 20.0}},
        "image_stages_alone": 20.0,
        "model_alone": 40.0,
        "job": 18.0,
        "ratio": 0.9,
        "bottleneck": "read",
    }
    shown = text(*tables.stages_tables(document))
    assert "read       0.50      10            20.0" in shown
    assert "whole job / slower half  0.90" in shown


def test_a_single_shard_tells_less_than_a_store() -> None:
    shard = {
        "store": "000000.safetensors",
        "encoded": 2,
        "failed": 1,
        "latent_sizes": {"8x2x2": 2},
        "failures": {"read: [gone]": 1},
        "metadata": {"model": "m", "latent_space": "s#raw"},
    }
    shown = text(*tables.store_tables(shard))
    assert "8x2x2 (2)" in shown
    assert "s#raw" in shown
    assert "read: [gone]" in shown
    assert "status" not in shown


def test_verify() -> None:
    problem = {"unit": None, "key": "a", "kind": "latent", "problem": "a: it differs"}
    document = {
        "store": "s",
        "shards": 1,
        "inputs": 2,
        "problems": [problem, problem | {"unit": 3}],
        "reencoded": {"samples": 2, "max_relative_rms": 0.5, "tolerance": 0.02},
        "ok": False,
    }
    shown = text(*tables.verify_tables(document))
    assert "2, largest RMS difference 50.00% (2% allowed)" in shown
    assert shown.count("a: it differs") == 2
    good = document | {"problems": [], "reencoded": None, "ok": True}
    assert "differs" not in text(*tables.verify_tables(good))
