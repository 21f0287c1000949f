"""roundtrip --cached: pictures are compared with what a trainer's latents of them decode to."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from jobkit import encode, latents_of
from PIL import Image
from presetkit import toy_checkpoint
from safetensors.torch import save_file

from latentcli.core.errors import LatentCliError, UsageError
from latentcli.jobs.config import RoundtripJob
from latentcli.jobs.roundtrip.job import run_roundtrip

SIZES = {"a": (64, 48), "sub/b": (48, 64), "c": (64, 64)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "sub").mkdir()
    rng = np.random.default_rng(0)
    for key, (w, h) in SIZES.items():
        small = Image.fromarray(rng.integers(0, 255, (4, 4, 3), dtype=np.uint8))
        small.resize((w, h)).save(folder / f"{key}.png")
    return folder


@pytest.fixture(scope="module")
def latents(tmp_path_factory, folder, model):
    """By key, what the toy model makes of the pictures: whitened, bf16."""
    store = tmp_path_factory.mktemp("store") / "store"
    encode(folder, store, model)
    return {name.removesuffix("/latent"): latent for name, latent in latents_of(store).items()}


def ai_toolkit(folder: Path, latents: dict[str, torch.Tensor], told: str = "mine") -> Path:
    for key, latent in latents.items():
        path = folder / key
        path = path.parent / "_latent_cache" / f"{path.name}_AAAAAAAAAAAAAAAAAAAAAA.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"latent": latent}, path, {"latent_space_version": told})
    return folder


def simpletuner(folder: Path, latents: dict[str, torch.Tensor]) -> Path:
    for key, latent in latents.items():
        name = hashlib.sha256(Path(key).name.encode()).hexdigest()
        path = folder / Path(key).parent / f"{name}.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(latent, path)
    return folder


def compare(folder: Path, model: str, **options) -> dict:
    job = RoundtripJob(
        sources=(str(folder),), models=(model,), device="cpu", workers=0, batch_size=2, **options
    )
    return run_roundtrip(job)


def psnr(document: dict) -> dict:
    return document["models"][0]["psnr"]


def test_cached_latents_give_the_figures_of_encoding(folder, latents, model, tmp_path) -> None:
    plain = compare(folder, model)
    cached = compare(folder, model, cached=str(simpletuner(tmp_path / "cache", latents)))
    assert (cached["images"], cached["failed"]) == (3, 0)
    assert psnr(cached) == pytest.approx(psnr(plain), abs=1e-4)
    told = cached["settings"]
    assert told["cached"] == str(tmp_path / "cache")
    assert told["latents"].endswith("SimpleTuner: scaled latents of a space that is not named")
    assert cached["stages"]["read"]["items"] and not cached["stages"].get("encode")
    # Another picture's latent of the same size would not.
    zero = {key: torch.zeros_like(latent) for key, latent in latents.items()}
    other = compare(folder, model, cached=str(simpletuner(tmp_path / "zero", zero)))
    assert abs(psnr(other)["mean"] - psnr(plain)["mean"]) > 1e-3


def test_what_the_cache_lacks_is_a_failed_input(folder, latents, model, tmp_path) -> None:
    spoiled = torch.full_like(latents["sub/b"], float("nan"))
    some = {"a": latents["a"][:, :2], "sub/b": spoiled}
    cached = simpletuner(tmp_path / "cache", some | {"d": latents["c"]})
    save = simpletuner(tmp_path / "one", {"c": latents["c"]})
    found = compare(folder, model, cached=str(save))
    assert (found["images"], found["failed"]) == (1, 2)
    with pytest.raises(LatentCliError, match="No input could be used"):
        compare(folder, model, cached=str(cached))
    said = {each["key"]: each["error"] for each in found["failures"]}
    assert said.keys() == {"a", "sub/b"} and "has no latent of this picture" in said["a"]
    simpletuner(tmp_path / "cache", {"c": latents["c"]})
    found = compare(folder, model, cached=str(cached))
    said = {each["key"]: each["error"] for each in found["failures"]}
    assert (
        "is resized to 64x48, which gives a latent of [8, 3, 4]; the cached one is [8, 2, 4]"
        in said["a"]
    )
    assert "not finite" in said["sub/b"]


def test_a_latent_of_another_folder_is_not_taken(folder, latents, model, tmp_path) -> None:
    def found(cache: Path, source: Path = folder) -> set[str]:
        missing = {each["key"] for each in compare(source, model, cached=str(cache))["failures"]}
        return {"a", "sub/b", "c", "b"} - missing

    b, c = latents["sub/b"], latents["c"]
    elsewhere = simpletuner(tmp_path / "elsewhere", {"other/b": b, "sub/b": b, "c": c})
    assert "sub/b" in found(elsewhere)
    (elsewhere / "sub").rename(elsewhere / "third")
    assert "sub/b" not in found(elsewhere)
    # A flat cache, such as musubi-tuner's, knows names alone.
    assert "sub/b" in found(simpletuner(tmp_path / "flat", {"b": b, "c": c}))
    # A part of the pictures, with the cache of all of them; but not where two have the name.
    assert "b" in found(simpletuner(tmp_path / "one", {"sub/b": b}), folder / "sub")
    with pytest.raises(LatentCliError, match="has no latent of this picture"):
        found(elsewhere, folder / "sub")


def test_what_is_refused(folder, latents, model, other_model, tmp_path) -> None:
    with pytest.raises(UsageError, match="holds no latents of a trainer"):
        compare(folder, model, cached=str(folder))
    with pytest.raises(UsageError, match="holds no latents of a trainer"):
        compare(folder, model, cached=str(tmp_path / "none"))
    cache = ai_toolkit(tmp_path / "cache", latents, "sdxl")
    with pytest.raises(UsageError, match=r"of sdxl#scaled, but .* decodes local-.*--model: .*sdxl"):
        compare(folder, model, cached=str(cache))
    with pytest.raises(UsageError, match="--cached takes the place of an encoder"):
        compare(folder, model, cached=str(cache), decoders=(other_model,))


def test_a_decoder_alone_is_enough(tmp_path, monkeypatch) -> None:
    toy_checkpoint(tmp_path / "weights", "taesdxl")
    monkeypatch.setenv("LATENTCLI_WEIGHTS", str(tmp_path / "weights"))
    (tmp_path / "set").mkdir()
    Image.new("RGB", (64, 48), (90, 10, 200)).save(tmp_path / "set" / "a.png")
    raw = torch.randn(4, 6, 8)
    np.savez(tmp_path / "set" / "a_0064x0048_sdxl.npz", latents=raw.numpy())
    found = compare(tmp_path / "set", "taesdxl", cached=str(tmp_path / "set"))
    assert found["images"] == 1
    own = ai_toolkit(tmp_path / "own", {"a": raw * 0.13025}, "sdxl")
    again = compare(tmp_path / "set", "taesdxl", cached=str(own))
    assert psnr(again) == pytest.approx(psnr(found), abs=1e-4)
