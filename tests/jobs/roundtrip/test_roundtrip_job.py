"""Roundtrip figures are those of encoding, rounding, decoding and measuring by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from jobkit import changed_model, decode, encode, pictures_of, toy_pictures
from PIL import Image

from latentcli.core.errors import LatentCliError, UsageError
from latentcli.images.codec import to_uint8
from latentcli.jobs.config import RoundtripJob
from latentcli.jobs.inference.noise import sample_noise
from latentcli.jobs.roundtrip.job import run_roundtrip
from latentcli.models.registry import load_model

PSNR_TOLERANCE = 0.02
"""dB: a value on the edge between two levels may fall either way in another batch."""


def roundtrip(source: object, *models: str, **options: object) -> dict:
    settings = {"sources": (str(source),), "models": models, "device": "cpu", "workers": 0}
    return run_roundtrip(RoundtripJob(**settings | options))


def by_hand(path: object, key: str, net: torch.nn.Module) -> float:
    pixels = np.asarray(Image.open(path).convert("RGB"))
    height, width = (side // 16 * 16 for side in pixels.shape[:2])
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    pixels = pixels[top : top + height, left : left + width]
    image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
    latent = net.encode(image).bfloat16().float()
    noise = sample_noise(0, [key], (3, height, width))
    decoded = to_uint8(net.decode(latent, height, width, noise=noise))[0]
    error = decoded.permute(1, 2, 0).numpy().astype(float) - pixels
    return 10 * math.log10(255**2 / np.square(error).mean())


def check_by_hand(folder, model):
    found = roundtrip(folder, model)
    net = load_model(model)
    paths = sorted(p for p in folder.rglob("*.*"))
    keys = [str(path.relative_to(folder).with_suffix("")) for path in paths]
    expected = np.array([by_hand(p, k, net) for p, k in zip(paths, keys, strict=True)])
    figures = found["models"][0]["psnr"]
    assert found["images"] == len(expected)
    for name, value in {
        "mean": expected.mean(),
        "std": expected.std(),
        "median": np.median(expected),
        "min": expected.min(),
        "max": expected.max(),
        "p5": np.percentile(expected, 5),
        "p95": np.percentile(expected, 95),
    }.items():
        assert figures[name] == pytest.approx(value, abs=PSNR_TOLERANCE), name
    json.dumps(found, allow_nan=False)


@torch.inference_mode()
def test_figures_of_the_toy_model(model, tmp_path):
    check_by_hand(toy_pictures(tmp_path / "pictures", 5), model)


@torch.inference_mode()
def test_figures_of_the_bundled_model(bundled, photographs, tmp_path):
    for path in photographs.iterdir():
        pixels = np.asarray(Image.open(path).convert("RGB"))
        Image.fromarray(pixels).save(tmp_path / path.name)  # without its colour profile
    check_by_hand(tmp_path, bundled)


def test_two_models_have_a_delta(mixed, model, other_model, tmp_path):
    found = roundtrip(mixed, model, other_model)
    first, second = found["models"]
    assert (first["model"], second["model"]) == ("toy", "other")
    assert first["weights_sha256"] != second["weights_sha256"]
    (delta,) = found["delta"]
    assert (delta["model"], delta["against"]) == ("other", "toy")
    difference = second["psnr"]["mean"] - first["psnr"]["mean"]
    assert delta["psnr"]["mean"] == pytest.approx(difference, abs=2e-4)
    assert (found["images"], found["failed"]) == (23, 2)
    assert {item["key"] for item in found["failures"]} == {"000/000010", "000/000021"}
    assert roundtrip(mixed, model)["delta"] is None


def test_saved_pictures_are_those_of_a_store(mixed, model, tmp_path):
    roundtrip(mixed, model, save=str(tmp_path / "saved"))
    encode(mixed, tmp_path / "store", model)
    decode(tmp_path / "store", tmp_path / "decoded")
    saved, decoded = (pictures_of(tmp_path / name) for name in ("saved/toy", "decoded"))
    assert saved.keys() == decoded.keys() and len(saved) == 23
    for key in saved:
        assert np.abs(saved[key].astype(int) - decoded[key]).max() <= 1


def test_workers_change_no_figure(mixed, model):
    here, there = roundtrip(mixed, model), roundtrip(mixed, model, workers=1)
    assert here["models"] == there["models"]


def test_decode_settings_change_the_figures_and_are_told(mixed, model):
    plain = roundtrip(mixed, model)
    more = roundtrip(mixed, model, steps=3, sampler="dpmpp_2m", schedule="cosine", seed=4)
    assert plain["models"][0]["psnr"] != more["models"][0]["psnr"]
    told = more["settings"]
    assert (told["steps"], told["sampler"], told["schedule"], told["seed"]) == (
        3,
        "dpmpp_2m",
        "cosine",
        4,
    )


def test_a_size_is_told(model, tmp_path):
    pictures = toy_pictures(tmp_path / "pictures", 2, [(80, 48)])
    found = roundtrip(pictures, model, size="64x32")
    assert found["settings"]["size"] == "64x32" and found["settings"]["divisor"] == 16


def test_only_bad_inputs_are_an_error(tmp_path, model):
    (tmp_path / "a.jpg").write_bytes(b"")
    with pytest.raises(LatentCliError, match=r"No input could be used; the first of 1, .*empty"):
        roundtrip(tmp_path, model)


def test_usage(mixed, model, other_model, tmp_path):
    def drop(state: dict[str, torch.Tensor]) -> None:
        for name in [name for name in state if name.startswith("encoder.")]:
            del state[name]

    with pytest.raises(UsageError, match="--weights"):
        roundtrip(mixed, model, other_model, weights="x")
    with pytest.raises(UsageError, match="has only a decoder"):
        roundtrip(mixed, changed_model(model, tmp_path / "decoder", drop))


def test_on_error_stop(mixed, model):
    with pytest.raises(LatentCliError, match=r"000010\.jpg failed at decode_image"):
        roundtrip(mixed, model, on_error="stop")
