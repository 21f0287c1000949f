"""Documents become tables that lose nothing, wherever they are printed."""

from __future__ import annotations

import io

import pytest
from rich.console import Console, RenderableType

from latentcli.reports import tables

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


def test_models() -> None:
    row = text(*tables.models_tables([MODEL])).splitlines()[-1].split()
    assert row == [
        *("semdisdiffae", "88.8M", "f16c128", "16", "data-archetype/semdisdiffae"),
        *("decode", "hub", "[not", "markup]"),
    ]


def test_a_narrow_terminal_folds_and_loses_nothing() -> None:
    shown = text(*tables.models_tables([MODEL]), width=60)
    assert max(map(len, shown.splitlines())) <= 60
    assert "…" not in shown
    assert "88.8M" in shown


@pytest.mark.parametrize(
    ("number", "told"), [(4_707_840, "4.7M"), (132_976, "133K"), (114_690_816, "114.7M")]
)
def test_parameters(number: int, told: str) -> None:
    assert tables.parameters(number) == told


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


def test_preprocessing() -> None:
    plain = {"size": None, "divisor": 16, "filter": "lanczos"}
    assert tables.preprocessing_text(plain) == "own size, cropped to multiples of 16"
    sized = plain | {"size": [64, 32]}
    assert tables.preprocessing_text(sized) == "resized (lanczos) and cropped to 64x32"
    bucketed = plain | {"buckets": {"rule": "kohya", "table": [[1, 2]] * 7}}
    told = tables.preprocessing_text(bucketed)
    assert told == "resized (lanczos) and cropped to 7 buckets (kohya rule)"
    bucketed["buckets"] |= {"rule": "ai-toolkit", "table": [], "area": 65_536}
    told = tables.preprocessing_text(bucketed)
    assert told == "resized (lanczos) and cropped to buckets for 65,536 pixels (ai-toolkit rule)"


CHECK = {"keys": ["a", "b", "c"], "latent_rms": 1.0684, "psnr": [1, 2, 3], "psnr_floor": 18.0}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"psnr_median": 35.549},
            "the first 3 pictures came back at 35.5 dB (the floor is 18 dB)",
        ),
        ({"psnr_median": 35.549, "psnr_floor": None}, "the first 3 pictures came back at 35.5 dB"),
        (
            {"psnr_median": 35.549, "keys": ["a"]},
            "the first picture came back at 35.5 dB (the floor is 18 dB)",
        ),
        ({"psnr_median": None}, "the first 3 pictures came back identical"),
        (
            {"psnr_median": None, "psnr": []},
            "the latents of the first 3 pictures are finite, with RMS 1.068",
        ),
    ],
)
def test_the_self_check_is_a_sentence(changes: dict, said: str) -> None:
    assert tables.self_check_text(CHECK | changes) == said
    assert tables.self_check_text(None) == "not run"
