"""`budget`: its bytes are those that encode writes, and its PSNR is what decode gives."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clipkit import clips_in
from encodekit import pictures
from jobkit import changed_model, decode, encode, pictures_of
from tarjobkit import make_tar, members

from latentcli.core.errors import LatentCliError, UsageError
from latentcli.core.types import STORE_DTYPES
from latentcli.jobs.store.budget import run_budget
from latentcli.jobs.store.budget_config import BudgetJob

SIZES = ((96, 64), (64, 96), (96, 64), (128, 128))


def budget(*sources: object, **options: Any) -> dict[str, Any]:
    return run_budget(BudgetJob(sources=tuple(map(str, sources)), device="cpu", **options))


def row_of(document: dict[str, Any], dtype: str) -> dict[str, Any]:
    return next(row for row in document["rows"] if row["store_dtype"] == dtype)


def psnr_of(folder: Path, decoded: Path) -> float:
    """Mean over pictures, by numpy alone."""
    found = pictures_of(decoded)
    errors = [
        np.square(pixels.astype(float) - found[key]).mean()
        for key, pixels in pictures_of(folder).items()
        if key in found
    ]
    assert len(errors) == len(found)
    return float(np.mean([10 * np.log10(255**2 / error) for error in errors]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return pictures(tmp_path_factory.mktemp("pictures") / "in", SIZES)


@pytest.fixture(scope="module")
def stores(tmp_path_factory, folder, model):
    """A store of each dtype."""
    root = tmp_path_factory.mktemp("stores")
    for dtype in STORE_DTYPES:
        encode(folder, root / dtype, model, store_dtype=dtype, batch_size=1)
    return root


def shard_bytes(store: Path) -> int:
    return sum(path.stat().st_size for path in (store / "shards").glob("*.safetensors"))


def test_it_says_what_encode_and_decode_give(folder, stores, model, tmp_path):
    found = budget(folder, model=model, samples=9)
    assert found["samples"] == len(SIZES) and found["against"] == "pictures"
    assert [row["store_dtype"] for row in found["rows"]] == list(STORE_DTYPES)
    files = [path.stat().st_size for path in folder.iterdir()]
    assert found["source_bytes"] == round(sum(files) / len(files))
    for row in found["rows"]:
        dtype = row["store_dtype"]
        decode(stores / dtype, tmp_path / dtype, batch_size=1)
        assert row["psnr"]["mean"] == pytest.approx(psnr_of(folder, tmp_path / dtype), abs=0.01)
        # The head of a shard is not counted, and the names here are long beside such latents.
        assert row["bytes"] == pytest.approx(shard_bytes(stores / dtype) / len(SIZES), abs=200)
        assert row["million_bytes"] == pytest.approx(row["bytes"] * 1e6, rel=1e-3)
        assert row["delta"] == pytest.approx(
            row["psnr"]["mean"] - row_of(found, "bf16")["psnr"]["mean"], abs=2e-4
        )


@pytest.mark.parametrize("dtype", ["bf16", "int8"])
def test_of_a_store_the_bytes_are_of_all_its_sizes(stores, folder, model, dtype):
    found, whole = budget(stores / dtype, samples=2), budget(folder, model=model)
    assert (found["stored_in"], found["against"], found["samples"]) == (dtype, "pictures", 2)
    for each in STORE_DTYPES:
        # Two pictures are measured, of two of the three sizes; the bytes are of all four.
        written = shard_bytes(stores / each) / len(SIZES)
        assert row_of(found, each)["bytes"] == pytest.approx(written, abs=16)
    assert row_of(found, dtype)["bytes"] == round(shard_bytes(stores / dtype) / len(SIZES))
    again = budget(stores / dtype, samples=99)
    assert again["source_bytes"] == whole["source_bytes"]
    for row, other in zip(again["rows"], whole["rows"], strict=True):
        assert row["psnr"]["mean"] == pytest.approx(other["psnr"]["mean"], abs=0.01)


def test_without_the_pictures_it_compares_with_what_the_store_decodes_to(folder, model, tmp_path):
    source = shutil.copytree(folder, tmp_path / "in")
    encode(source, tmp_path / "store", model)
    shutil.rmtree(source)
    found = budget(tmp_path / "store", samples=3)
    assert (found["against"], found["samples"]) == ("latents", 3)
    assert row_of(found, "bf16")["psnr"]["mean"] is None  # the very same
    assert 30 < row_of(found, "fp8")["psnr"]["mean"] < row_of(found, "int8")["psnr"]["mean"]
    assert found["source_bytes"] is not None


def test_flips_and_moments_count(folder, model, tmp_path):
    encode(folder, tmp_path / "store", model, latents="moments", flip="both")
    found = budget(tmp_path / "store", samples=2)
    assert row_of(found, "bf16")["bytes"] == round(shard_bytes(tmp_path / "store") / len(SIZES))
    # Four parts with a scale each.
    assert row_of(found, "int8")["share"] > 0.5
    assert row_of(found, "int8")["psnr"]["mean"] is not None


def test_what_does_not_fit_is_told(folder, model, tmp_path):
    def enlarge(state: dict[str, Any]) -> None:
        state["latent_norm_running_mean"] -= 1e5

    large = changed_model(model, tmp_path / "large", enlarge)
    row = row_of(budget(folder, model=large, samples=2), "fp16")
    assert row["unfit"] == 2 and row["psnr"]["mean"] is None and row["delta"] is None


def test_samples_of_tars(tmp_path, model):
    make_tar(tmp_path / "0.tar", members(5, size=(64, 64)))
    make_tar(tmp_path / "1.tar", members(5, first=5, size=(64, 64)))
    found = budget(tmp_path / "0.tar", tmp_path / "1.tar", model=model, samples=4)
    assert found["samples"] == 4 and found["source_bytes"] > 100


def test_refusals(stores, folder, tmp_path):
    with pytest.raises(UsageError, match=r"holds latents of .*, but linear16 is for"):
        budget(stores / "bf16", model="linear16")
    clips = clips_in(tmp_path / "clips", (3,))
    encode(clips, tmp_path / "clipstore", "linear16", samples_per_shard=2)
    with pytest.raises(UsageError, match="holds clips, and budget measures only pictures"):
        budget(tmp_path / "clipstore")
    bad = pictures(tmp_path / "bad", SIZES[:2], bad=(0, 1))
    with pytest.raises(LatentCliError, match="None of the pictures"):
        budget(bad, model="linear16")


@pytest.mark.shared
def test_int8_on_kodak_costs_less_than_half_a_decibel(shared, bundled, tmp_path):
    folder = tmp_path / "kodak"
    folder.mkdir()
    for name in ("kodim05.png", "kodim20.png"):
        shutil.copy(shared / "images" / "kodak" / name, folder)
    found = budget(folder, model=bundled, size="256")
    assert -0.5 < row_of(found, "int8")["worst_delta"] <= row_of(found, "int8")["delta"] < 0
    for dtype in ("bf16", "int8"):
        encode(folder, tmp_path / dtype / "store", bundled, size="256", store_dtype=dtype)
        decode(tmp_path / dtype / "store", tmp_path / dtype / "out")
        told = row_of(found, dtype)["psnr"]["mean"]
        assert told == pytest.approx(direct(folder, tmp_path / dtype / "out"), abs=0.05)
    assert row_of(found, "int8")["share"] < 0.51


def direct(folder: Path, decoded: Path) -> float:
    """PSNR of decoded pictures to the originals, resized as encode says it does."""
    from PIL import Image

    values = []
    for path in sorted(folder.iterdir()):
        with Image.open(path) as image:
            scale = 256 / min(image.size)
            size = tuple(round(side * scale) for side in image.size)
            small = image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
        left, top = ((side - 256) // 2 for side in size)
        wanted = np.asarray(small.crop((left, top, left + 256, top + 256))).astype(float)
        back = pictures_of(decoded)[path.stem].astype(float)
        values.append(10 * np.log10(255**2 / np.square(wanted - back).mean()))
    return float(np.mean(values))


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.timeout(1800)
def test_all_of_kodak(shared, bundled):
    """35.083 dB in bf16 and 35.029 in int8, measured apart from this code."""
    found = budget(shared / "images" / "kodak", model=bundled, samples=24)
    assert row_of(found, "bf16")["psnr"]["mean"] == pytest.approx(35.083, abs=0.05)
    assert row_of(found, "int8")["psnr"]["mean"] == pytest.approx(35.029, abs=0.05)
    assert row_of(found, "int8")["delta"] > -0.1
