"""Several models and a baseline: one document, one CSV file, the same figures in both."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from clipkit import clips_in, cut, pixels_of
from harness.clip_files import make_clip
from jobkit import changed_model, encode, latents_of, toy_pictures
from PIL import Image

from latentcli.core.errors import LatentCliError, UsageError
from latentcli.jobs.config import RoundtripJob
from latentcli.jobs.roundtrip.compare import Result, chosen, finite_ones
from latentcli.jobs.roundtrip.job import run_roundtrip


def roundtrip(source: object, *models: str, **options: object) -> dict:
    settings = {"sources": (str(source),), "models": models, "device": "cpu", "workers": 0}
    return run_roundtrip(RoundtripJob(**settings | options))


def table_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def column(rows: list[dict[str, str]], name: str) -> np.ndarray:
    return np.array([float(row[name]) for row in rows])


def test_the_csv_has_every_image_and_the_figures_of_the_document(
    mixed, model, other_model, tmp_path
):
    found = roundtrip(mixed, other_model, baseline=model, csv=str(tmp_path / "f.csv"))
    rows = table_of(tmp_path / "f.csv")
    assert len(rows) == found["images"] == 23
    assert len({row["key"] for row in rows}) == 23
    assert all(row["source"].endswith((".jpg", ".png")) for row in rows)
    assert found["baseline"] == "toy"
    for entry in found["models"]:
        for name in ("psnr", "ssim", "ssim_gaussian"):
            values = column(rows, f"{entry['model']}.{name}")
            assert entry[name]["mean"] == pytest.approx(values.mean(), abs=1e-4)
            assert entry[name]["p95"] == pytest.approx(np.percentile(values, 95), abs=1e-4)
        worst = min(rows, key=lambda row: float(row[f"{entry['model']}.psnr"]))
        assert entry["worst"][0]["key"] == worst["key"]
        assert rows[entry["best"][0]["index"]]["key"] == entry["best"][0]["key"]
    (delta,) = found["delta"]
    assert (delta["model"], delta["against"]) == ("other", "toy")
    each = column(rows, "other.ssim") - column(rows, "toy.ssim")
    assert delta["ssim"]["std"] == pytest.approx(each.std(), abs=1e-4)
    assert delta["ssim"]["min"] == pytest.approx(each.min(), abs=1e-4)
    json.dumps(found, allow_nan=False)


def test_latents_are_compared_and_described(mixed, model, other_model, tmp_path):
    found = roundtrip(mixed, model, other_model, csv=str(tmp_path / "f.csv"), metrics=("psnr",))
    stores = {}
    for name, path in {"toy": model, "other": other_model}.items():
        encode(mixed, tmp_path / name, path)
        stores[name] = latents_of(tmp_path / name)
    cosines = {
        key.removesuffix("/latent"): torch.nn.functional.cosine_similarity(
            stores["toy"][key].double().flatten(), stores["other"][key].double().flatten(), dim=0
        ).item()
        for key in stores["toy"]
    }
    rows = table_of(tmp_path / "f.csv")
    assert {row["key"]: float(row["other.latent_cosine"]) for row in rows} == pytest.approx(
        cosines, abs=1e-3
    )
    assert rows[0]["toy.latent_cosine"] == ""
    first = found["models"][0]
    assert found["delta"][0]["latent_cosine"]["mean"] == pytest.approx(
        np.mean(list(cosines.values())), abs=1e-3
    )
    values = np.concatenate(
        [t.double().numpy().reshape(t.shape[0], -1) for t in stores["toy"].values()], axis=1
    )
    assert first["latents"]["mean"] == pytest.approx(values.mean(), abs=1e-3)
    assert first["latents"]["std"] == pytest.approx(values.std(), rel=1e-3)


def test_all_settings_that_change_figures_are_told(mixed, model):
    told = roundtrip(mixed, model, metrics=("ssim", "psnr"), seed=3, alpha="black")["settings"]
    wanted = {"steps", "sampler", "schedule", "pdg", "seed", "dtype", "resize", "pixels"}
    assert wanted <= {name for name, value in told.items() if value is not None}
    assert (told["alpha"], told["dtype"], told["seed"]) == ("black", "fp32", 3)
    assert "peak 255" in told["psnr"] or "255" in told["psnr"]


def test_ends_are_of_the_first_metric(mixed, model, tmp_path):
    found = roundtrip(mixed, model, metrics=("ssim",), csv=str(tmp_path / "f.csv"))
    rows = table_of(tmp_path / "f.csv")
    worst = min(rows, key=lambda row: float(row["toy.ssim"]))
    assert found["models"][0]["worst"][0]["key"] == worst["key"]
    assert found["models"][0]["psnr"] is None


def test_a_small_image_has_no_figure_that_needs_a_larger_one(model, tmp_path):
    toy_pictures(tmp_path / "p", 2, [(16, 16), (192, 176)])
    found = roundtrip(
        tmp_path / "p", model, metrics=("psnr", "ms_ssim"), csv=str(tmp_path / "f.csv")
    )
    cells = sorted(row["toy.ms_ssim"] for row in table_of(tmp_path / "f.csv"))
    assert cells[0] == "" and 0 < float(cells[1]) < 1
    assert found["models"][0]["ms_ssim"]["mean"] == pytest.approx(float(cells[1]), abs=1e-4)


def test_delta_of_a_measure_that_some_images_lack(model, other_model, tmp_path):
    toy_pictures(tmp_path / "p", 3, [(16, 16), (192, 176)])
    found = roundtrip(tmp_path / "p", model, other_model, metrics=("psnr", "ms_ssim"))
    assert found["delta"][0]["ms_ssim"]["std"] is not None


def test_an_identical_picture_is_inf_in_the_file(tmp_path):
    Image.new("RGB", (32, 32), (128, 128, 128)).save(tmp_path / "grey.png")
    found = roundtrip(tmp_path / "grey.png", "linear16", csv=str(tmp_path / "f.csv"))
    (row,) = table_of(tmp_path / "f.csv")
    value = float(row["linear16.psnr"])
    told = found["models"][0]["psnr"]["mean"]
    assert (math.isinf(value) and told is None) or told == pytest.approx(value, abs=1e-4)


def test_clips_have_figures_of_their_own(tmp_path):
    source = clips_in(tmp_path / "clips", [4, 6])
    cut(make_clip(tmp_path / "long.mp4", 60), source / "c00cut.mp4")
    found = roundtrip(source, "linear16", csv=str(tmp_path / "f.csv"))
    rows = table_of(tmp_path / "f.csv")
    assert [row["key"] for row in rows[:2]] == ["c00/000000", "c00/000001"] and len(rows) == 10
    (entry,) = found["clip_figures"]
    first, second = entry["clips"]
    assert (first["key"], second["key"]) == ("c00", "c01")
    psnrs = column(rows, "linear16.psnr")
    assert first["psnr"] == pytest.approx(psnrs[:4].mean(), abs=1e-3)
    assert second["ssim"] == pytest.approx(column(rows, "linear16.ssim")[4:].mean(), abs=1e-3)
    pixels = pixels_of(source / "c01.mp4").double()
    motion = (pixels[1:] - pixels[:-1]).abs().mean().item()
    assert second["motion"] == pytest.approx(motion, abs=1e-3)
    assert 0 <= second["temporal"] <= 255
    assert entry["psnr"]["mean"] == pytest.approx((first["psnr"] + second["psnr"]) / 2, abs=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metrics": ("rfid",)}, "single images; add psnr"),
        ({"metrics": ("vmaf",)}, "--metrics is 'vmaf'; allowed are psnr, ssim"),
        ({"metric_weights": ("lpips=x",)}, "NAME=PATH with a name of --metrics"),
        ({"csv": "."}, "is a folder; name a file"),
        ({"csv": "none/f.csv"}, "there is no folder none"),
        ({"difference_gain": 0.0}, "--difference-gain is 0.0; it must be at least 1"),
    ],
)
def test_usage(options, message, mixed, model):
    with pytest.raises(UsageError, match=message):
        roundtrip(mixed, model, **options)


def test_a_failed_job_leaves_no_file(mixed, model, tmp_path):
    with pytest.raises(LatentCliError):
        roundtrip(mixed, model, csv=str(tmp_path / "f.csv"), on_error="stop")
    assert not list(tmp_path.iterdir())


def test_latents_that_are_no_numbers_fail_their_pictures(model, other_model, tmp_path):
    def spoil(state: dict[str, torch.Tensor]) -> None:
        name = next(name for name in state if name.startswith("encoder."))
        state[name] = state[name] * float("nan")

    broken = changed_model(model, tmp_path / "broken", spoil)
    with pytest.raises(LatentCliError, match=r"encode: the latent has values that are not finite"):
        roundtrip(toy_pictures(tmp_path / "p", 2), other_model, broken)


def test_only_the_pictures_whose_latents_are_no_numbers_are_dropped():
    latents = torch.zeros(3, 2, 2, 2)
    latents[1, 0, 1, 1] = float("inf")
    decoded = torch.arange(3).view(3, 1, 1, 1).byte()
    result = Result(latents, decoded, {"psnr": torch.tensor([1.0, 2.0, 3.0])}, {})
    other = Result(torch.zeros(3, 1, 1, 1), decoded, {}, {})
    assert finite_ones([result, other]) == [True, False, True]
    kept = chosen(result, [0, 2])
    assert kept.decoded.flatten().tolist() == [0, 2]
    assert kept.figures["psnr"].tolist() == [1.0, 3.0]
    assert torch.isfinite(kept.latents).all()
