"""Trainers' caches are decoded in the state that each trainer keeps: the numbers of every space."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from jobkit import decode, pictures_of
from presetkit import toy_checkpoint
from safetensors.torch import save_file

from latentcli.core.errors import UsageError
from latentcli.jobs.decode.latents import own_latents
from latentcli.jobs.decode.open_latents import open_latents
from latentcli.jobs.inference.engine import load_engine

MODELS = {"sd1": "taesd", "sdxl": "taesdxl", "sd3": "taesd3", "flux1": "taef1", "flux2": "taef2"}
CHANNELS = {"sd1": 4, "sdxl": 4, "sd3": 16, "flux1": 16, "flux2": 128}


def scaled(space: str, raw: torch.Tensor) -> torch.Tensor:
    """The model's own latents of raw ones, in the numbers that the trainers have."""
    if space == "sd1":
        return raw * 0.18215
    if space == "sdxl":
        return raw * 0.13025
    if space == "sd3":
        return (raw - 0.0609) * 1.5305
    assert space == "flux1"
    return (raw - 0.1159) * 0.3611


def kohya(suffix: str):
    def write(folder: Path, latent: torch.Tensor) -> Path:
        path = folder / f"a_0032x0048_{suffix}.npz"
        key = "latents" if suffix in ("sd", "sdxl") else "latents_4x4"
        np.savez(path, **{key: latent.numpy()})
        return path

    return write


def musubi(arch: str, key: str):
    def write(folder: Path, latent: torch.Tensor) -> Path:
        path = folder / f"a_0032x0048_{arch}.safetensors"
        save_file({key: latent}, path)
        return path

    return write


def ai_toolkit(version: str):
    def write(folder: Path, latent: torch.Tensor) -> Path:
        path = folder / "a_AAAAAAAAAAAAAAAAAAAAAA.safetensors"
        save_file({"latent": latent}, path, {"latent_space_version": version})
        return path

    return write


def simpletuner(folder: Path, latent: torch.Tensor) -> Path:
    torch.save(latent, folder / "a.pt")
    return folder / "a.pt"


def comfy(folder: Path, latent: torch.Tensor) -> Path:
    marker = {"latent_format_version_0": torch.zeros(0)}
    save_file({"latent_tensor": latent[None]} | marker, folder / "a.latent")
    return folder / "a.latent"


def lightningdit(folder: Path, latent: torch.Tensor) -> Path:
    labels = torch.zeros(1, dtype=torch.int64)
    save_file({"latents": latent[None], "labels": labels}, folder / "a.safetensors")
    return folder / "a.safetensors"


CASES = [
    ("sd1", "raw", kohya("sd")),
    ("sdxl", "raw", kohya("sdxl")),
    ("sd3", "raw", kohya("sd3")),
    ("flux1", "own", kohya("flux")),
    ("flux1", "own", kohya("lumina")),
    ("flux1", "raw", musubi("zi", "latents_1x4x4_float32")),
    ("flux1", "own", musubi("fk", "latents_1x4x4_float32")),
    ("flux2", "own", musubi("f2d", "latents_4x4_float32")),
    ("flux2", "own", musubi("f2k9b", "latents_4x4_float32")),
    ("sd1", "own", ai_toolkit("sd1")),
    ("sdxl", "own", ai_toolkit("sdxl")),
    ("sd3", "own", ai_toolkit("sd3")),
    ("flux1", "own", ai_toolkit("flux1")),
    ("flux1", "own", ai_toolkit("zimage")),
    ("flux2", "own", ai_toolkit("flux2")),
    *((space, "own", simpletuner) for space in MODELS),
    *((space, "raw", comfy) for space in MODELS if space != "flux2"),
    ("flux2", "own", comfy),
    *((space, "raw", lightningdit) for space in MODELS if space != "flux2"),
]
"""(space, whether the trainer keeps raw latents or the model's own, what writes them)."""


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    for name in MODELS.values():
        toy_checkpoint(folder, name)
    return folder


@pytest.fixture(scope="module")
def engines(weights):
    return {
        space: load_engine(name, weights=str(weights / name), device="cpu")
        for space, name in MODELS.items()
    }


@pytest.mark.parametrize(("space", "kept", "write"), CASES)
def test_the_state_of_each_space_and_trainer(engines, tmp_path, space, kept, write) -> None:
    torch.manual_seed(0)
    latent = torch.randn(CHANNELS[space], 4, 4)
    source = open_latents(write(tmp_path, latent), None)
    assert source.space in (space, None)
    assert (source.state == "raw") == (kept == "raw")
    (sample,) = source.samples(source.units)
    own = own_latents(engines[space], sample.load()[None], source.state)[0]
    wanted = scaled(space, latent) if kept == "raw" else latent
    torch.testing.assert_close(own, wanted, rtol=1e-6, atol=1e-6)
    # The folder says what its file says.
    folder = open_latents(tmp_path, None)
    assert (folder.space, folder.state, folder.count) == (source.space, source.state, 1)


@pytest.mark.parametrize(
    ("space", "write"), [("sdxl", kohya("sdxl")), ("flux1", musubi("zi", "latents_1x4x4_float32"))]
)
def test_pictures_are_those_of_the_scaled_latent(weights, tmp_path, space, write) -> None:
    torch.manual_seed(0)
    latent = torch.randn(CHANNELS[space], 4, 4)
    (tmp_path / "cache").mkdir()
    write(tmp_path / "cache", latent)
    save_file({"a": scaled(space, latent)}, tmp_path / "plain.safetensors")
    options = {"model": MODELS[space], "weights": str(weights / MODELS[space])}
    found = decode(tmp_path / "cache", tmp_path / "out", **options)
    decode(tmp_path / "plain.safetensors", tmp_path / "plain", **options, latents="scaled")
    assert (found["decoded"], found["failed"]) == (1, 0)
    (picture,) = pictures_of(tmp_path / "out").values()
    (plain,) = pictures_of(tmp_path / "plain").values()
    assert picture.std() > 0 and np.array_equal(picture, plain)
    # The same file as that of the model's own latents would be another picture.
    decode(tmp_path / "plain.safetensors", tmp_path / "raw", **options, latents="raw")
    assert not np.array_equal(plain, *pictures_of(tmp_path / "raw").values())


def test_another_space_is_refused_with_both_named(weights, tmp_path) -> None:
    kohya("sdxl")(tmp_path, torch.zeros(4, 4, 4))
    with pytest.raises(UsageError, match="latents of sdxl#raw, but taesd decodes sd1#scaled"):
        decode(tmp_path, tmp_path / "out", model="taesd", weights=str(weights / "taesd"))


def test_folders_are_decoded_whatever_is_bad_in_them(model, tmp_path) -> None:
    folder = tmp_path / "data"
    (folder / "sub" / "_latent_cache").mkdir(parents=True)
    (folder / "_latent_cache").mkdir()
    latent = torch.randn(8, 2, 3)
    told = {"latent_space_version": "mine"}
    for name in ("_latent_cache/b", "_latent_cache/a", "sub/_latent_cache/a"):
        path = folder / f"{name}_AAAAAAAAAAAAAAAAAAAAAA.safetensors"
        save_file({"latent": latent}, path, told)
    (folder / "_latent_cache" / "c_AAAAAAAAAAAAAAAAAAAAAA.safetensors").write_bytes(b"short")
    found = decode(folder, tmp_path / "out", model=model, latents="raw")
    assert (found["decoded"], found["failed"]) == (3, 1)
    assert found["failures"][0]["key"] == "c"
    assert "c_AAAAAAAAAAAAAAAAAAAAAA.safetensors is damaged" in found["failures"][0]["error"]
    assert pictures_of(tmp_path / "out").keys() == {"a", "b", "sub/a"}
    again = decode(folder, tmp_path / "out", model=model, latents="raw", skip_existing=True)
    assert len(pictures_of(tmp_path / "out")) == 3 and again["skipped"] == 3


def test_no_picture_beside_a_cache_is_replaced(model, tmp_path) -> None:
    (tmp_path / "_latent_cache").mkdir()
    path = tmp_path / "_latent_cache" / "a_AAAAAAAAAAAAAAAAAAAAAA.safetensors"
    save_file({"latent": torch.zeros(8, 2, 2)}, path, {"latent_space_version": "mine"})
    (tmp_path / "a.png").write_bytes(b"a photograph")
    found = decode(tmp_path, tmp_path, model=model, latents="raw")
    assert (found["decoded"], found["failed"]) == (0, 1)
    assert "in the folder of the inputs" in found["failures"][0]["error"]
    assert (tmp_path / "a.png").read_bytes() == b"a photograph"
