"""A model's document becomes a card that says everything, at any width."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console, RenderableType

from latentcli.reports import cards, tables

SOURCE = {
    "repo": "org/name",
    "subfolder": "vae",
    "file": "model.safetensors",
    "revision": "main",
    "bundled": None,
    "sha256": None,
}
DOCUMENT: dict[str, Any] = {
    "name": "toy",
    "family": "fcdm",
    "summary": "A [toy] for tests",
    "parameters": 114_690_816,
    "parameters_by_part": {"encoder": 52_757_632, "decoder": 61_933_184, "class_head": 132_976},
    "network_note": None,
    "latent_space": "flux2",
    "latent_state": "whitened",
    "geometry": "f16c128",
    "downscale": 16,
    "size_divisor": 32,
    "example": {"image": [512, 512], "latent": [128, 32, 32], "bytes_in_bf16": 262_144},
    "encoded_by": ["flux2", "toy"],
    "decoded_by": ["toy"],
    "can_encode": True,
    "can_decode": True,
    "predicts_class": True,
    "is_video": True,
    "frames_per_chunk": 8,
    "image_range": [-1.0, 1.0],
    "output_range": None,
    "licence": "MIT",
    "card": "https://example.org/card",
    "paper": None,
    "weights": "hub",
    "weights_source": SOURCE,
    "weights_origin": None,
    "weights_path": None,
    "weights_problem": None,
    "config": {
        "in_channels": 3,
        "patch_size": 16,
        "model_dim": 896,
        "decoder_depth": 8,
        "decoder_start_blocks": 2,
        "decoder_end_blocks": 2,
        "mlp_ratio": 4.0,
        "latents_mean": [0.5 * n for n in range(100)],
        "pool": True,
    },
    "published": {
        "source": "a card: 2000 images",
        "kodak_psnr": 35.08,
        "psnr_db": {"mean": 36.34, "std": 4.5, "p5": 29.06},
        "psnr_db_above_flux2_vae": {"mean": 0.055, "std": 0.531, "min": -1.968, "p5": -0.811},
        "decode_ms_per_image": {"512x512": 7.34, "1024x1024": 11.6},
        "training": {"script": "train.py", "curve": [1, 2.5]},
    },
}


def text(*items: RenderableType, width: int = 1000) -> str:
    stream = io.StringIO()
    console = Console(file=stream, width=width, markup=False)
    for item in items:
        console.print(item)
    return stream.getvalue()


def card(**changes: Any) -> list[str]:
    shown = text(*cards.model_card(DOCUMENT | changes))
    return [" ".join(line.split()) for line in shown.splitlines()]


def test_the_facts() -> None:
    lines = card()
    assert lines[:2] == ["toy", "A [toy] for tests"]
    for line in (
        "can encode, decode, class token, video in chunks of 8 frames",
        "parameters 114,690,816: encoder 52.8M, decoder 61.9M, class head 133K",
        "latents f16c128, whitened: 512x512 gives 128x32x32, 256 KiB in bf16",
        "latent space flux2#whitened",
        "encoded by itself, flux2",
        "decoded by itself",
        "sizes width and height are multiples of 32",
        "pixels -1 to 1",
        "licence MIT",
        "card https://example.org/card",
        "weights org/name on the Hub, vae/model.safetensors, revision main",
        "found not on this machine; the Hub is asked when the model is first used",
    ):
        assert line in lines
    assert not [line for line in lines if line.startswith("paper")]


def test_the_network() -> None:
    lines = card()
    assert lines[lines.index("network: family fcdm") + 1 :][:4] == [
        "patch 16x16 pixels",
        "width 896",
        "decoder blocks 8: 2 before the middle, 4 in it, 2 after it",
        "other MLP ratio 4.0, latents mean (100 numbers, 0 to 49.5), pool yes",
    ]


def test_a_network_that_folds_latents_and_tells_its_widths_by_half() -> None:
    config = {
        "patch_size": [2, 2],
        "block_out_channels": [1],
        "encoder_block_out_channels": [64, 32],
        "down_block_types": ["Down", "Down"],
    }
    assert cards.structure_facts(config, 16) == {
        "patch": "2x2 latent cells, folded into channels",
        "encoder widths": "64, 32",
        "other": "down block types 2 x Down",
    }
    assert cards.structure_facts({"block_out_channels": [128, 256]}, 8) == {
        "widths": "128, 256",
        "other": None,
    }


def test_the_figures() -> None:
    lines = card()
    start = lines.index("published figures") + 1
    assert lines[start:] == [
        "source a card: 2000 images",
        "kodak PSNR 35.08",
        "",
        "mean std min p5",
        "PSNR dB 36.34 4.50 29.06",
        "PSNR dB above FLUX.2 VAE 0.055 0.531 -1.968 -0.811",
        "",
        "512x512 1024x1024",
        "decode ms per image 7.34 11.60",
        "",
        "training",
        "script train.py",
        "curve 1, 2.5",
    ]
    assert "published figures" not in card(published=None)


@pytest.mark.parametrize(
    ("row", "told"), [([1e-5, 2], ["0.00001", "2.00000"]), ([12, 9], ["12", "9"])]
)
def test_decimals_lose_no_figure(row: list[float], told: list[str]) -> None:
    assert [cards.decimals(row)(value) for value in row] == told


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"parameters_by_part": None, "network_note": "no diffusers."},
            "parameters 114,690,816 (not known by part: no diffusers.)",
        ),
        ({"parameters_by_part": {"decoder": 114_690_816}}, "parameters 114,690,816"),
        ({"encoded_by": []}, "encoded by no model here"),
        ({"extra": "video"}, "needs pip install 'latentcli[video]'"),
        (
            {"output_range": [0, 1]},
            "pixels -1 to 1; the published decode is taken to give 0 to 1 (output_range)",
        ),
        (
            {"can_encode": False, "predicts_class": None, "is_video": None},
            "can decode",
        ),
        (
            {"weights_source": {**SOURCE, "repo": None}},
            "weights not published: --weights takes a copy of model.safetensors",
        ),
        ({"weights_source": {**SOURCE, "bundled": "toy"}}, "weights inside the package"),
        (
            {"weights": "missing"},
            "found not on this machine, and offline mode is on (HF_HUB_OFFLINE)",
        ),
        (
            {"weights": "missing", "weights_source": {**SOURCE, "repo": None}},
            "found not on this machine",
        ),
        (
            {"weights_origin": "env", "weights_path": "/w/m.safetensors"},
            "found in $LATENTCLI_WEIGHTS: /w/m.safetensors",
        ),
        ({"weights_problem": "No file."}, "found not usable: No file."),
    ],
)
def test_what_differs(changes: dict[str, Any], line: str) -> None:
    assert line in card(**changes)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_terminal_cuts_nothing(width: int) -> None:
    shown = text(*cards.model_card(DOCUMENT), width=width)
    assert max(map(len, shown.splitlines())) <= width
    assert "…" not in shown
    for figure in ("36.34", "-1.968", "11.60", "-0.811"):
        assert figure in shown


ROW = {
    "name": "semdisdiffae_p32_v2",
    "parameters": 156_636_928,
    "latent_channels": 384,
    "downscale": 32,
    "size_divisor": 32,
    "latent_space": "data-archetype/semdisdiffae_p32_v2",
    "can_encode": True,
    "can_decode": True,
    "weights": "missing",
    "licence": "none granted: its repository names a licence for texts only",
}


@pytest.mark.parametrize(
    ("width", "left_out"), [(140, []), (120, ["licence"]), (80, ["licence", "latent space"])]
)
def test_the_list_fits_its_terminal(width: int, left_out: list[str]) -> None:
    header, _, row, *note = text(*tables.models_tables([ROW]), width=width).splitlines()
    assert [column for column in ("licence", "latent space") if column not in header] == left_out
    assert row.startswith("semdisdiffae_p32_v2   156.6M   f32c384 ")
    told = [f"For the {' and '.join(left_out)}: latentcli models show NAME"] if left_out else []
    assert note == told


def test_a_licence_in_short() -> None:
    assert tables.short_licence(ROW["licence"]) == "none granted"
    assert tables.short_licence("Apache-2.0 (the autoencoder)") == "Apache-2.0"
