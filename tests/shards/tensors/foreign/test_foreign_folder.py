"""Folders of another tool's latents: keys, order, what is passed over, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from latentcli.core.errors import SampleError, StoreError, UsageError
from latentcli.shards.tensors.foreign import folder as module
from latentcli.shards.tensors.foreign.folder import ForeignFolder, open_foreign_folder

DATA = Path(__file__).parents[3] / "data" / "trainers"


def opened(path: Path, state: str | None = None) -> ForeignFolder:
    found = open_foreign_folder(path, state)
    assert found is not None
    return found


def keys_of(folder: ForeignFolder) -> list[str]:
    return [latent.key for block in folder.blocks for latent in folder.latents(block)]


def cache(path: Path, value: float = 0.0, channels: int = 4) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, latents=np.full((channels, 2, 2), value, np.float32))


def test_kohya_beside_pictures(tmp_path) -> None:
    for number, name in enumerate(("b", "a b", "a")):
        cache(tmp_path / "10_cats" / f"{name}_0032x0032_sdxl.npz", number)
        (tmp_path / "10_cats" / f"{name}.png").write_bytes(b"a picture")
        (tmp_path / "10_cats" / f"{name}.txt").write_text("a cat")
        np.savez(tmp_path / "10_cats" / f"{name}_te_outputs.npz", a=np.zeros(1))
    cache(tmp_path / "a_0032x0032_sdxl.npz", 9)
    cache(tmp_path / ".hidden" / "a_0032x0032_flux.npz")
    folder = opened(tmp_path)
    assert (folder.space, folder.state, folder.count) == ("sdxl", "raw", 4)
    assert keys_of(folder) == ["10_cats/a b", "10_cats/a", "10_cats/b", "a"]
    values = [latent.load().mean().item() for latent in folder.latents(range(4))]
    assert values == [1, 2, 0, 9]
    with pytest.raises(UsageError, match="holds raw latents"):
        opened(tmp_path, "scaled")


def test_names_that_would_be_one_key_are_kept_apart(tmp_path) -> None:
    cache(tmp_path / "a_0032x0032_sd.npz", 1)
    cache(tmp_path / "a_0064x0064_sd.npz", 2)
    cache(tmp_path / "b_0064x0064_sd.npz", 3)
    assert keys_of(opened(tmp_path)) == ["a_0032x0032_sd", "a_0064x0064_sd", "b"]


@pytest.mark.parametrize(
    ("name", "count", "keys"),
    [
        ("kohya/sdxl", 1, ["cat"]),
        ("musubi/flux2_klein_4b", 1, ["cat"]),
        ("musubi/z_image", 1, ["cat"]),
        ("simpletuner/sdxl", 1, ["77af"]),
        ("simpletuner/flux2", 1, ["sub/77af"]),
        ("ai_toolkit/flux2", 1, ["cat"]),
        ("ai_toolkit/sdxl_flip", 2, ["cat_2ZPd", "cat_7Bqk"]),
        ("lightningdit", 10, ["latents_rank00_shard000_00000", "latents_rank00_shard000_00001"]),
        ("comfyui", 2, ["ComfyUI_00001_", "no_marker"]),
    ],
)
def test_folders_of_every_trainer(name, count, keys) -> None:
    folder = opened(DATA / name)
    found = keys_of(folder)
    assert len(found) == folder.count == count
    assert all(one.startswith(start) for one, start in zip(found, keys, strict=False))
    for latent in folder.latents(range(len(folder.names))):
        assert latent.load().ndim == 3


def test_files_are_read_block_by_block(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 3)
    for number in range(8):
        cache(tmp_path / f"{number}_0032x0032_sd.npz", number)
    folder = opened(tmp_path)
    assert [list(block) for block in folder.blocks] == [[0, 1, 2], [3, 4, 5], [6, 7]]
    assert [latent.key for latent in folder.latents(folder.blocks[2])] == ["6", "7"]


def test_a_bad_file_is_one_bad_latent_with_its_name(tmp_path) -> None:
    shutil.copytree(DATA / "ai_toolkit" / "sdxl_flip", tmp_path / "set")
    place = tmp_path / "set" / "_latent_cache"
    (place / "a_AAAAAAAAAAAAAAAAAAAAAA.safetensors").write_bytes(b"\0" * 20)
    other = torch.zeros(16, 2, 2)
    name = "zoo_BBBBBBBBBBBBBBBBBBBBBB.safetensors"
    save_file({"latent": other}, place / name, {"latent_space_version": "flux1"})
    save_file({"latent": other}, place / "z_CCCCCCCCCCCCCCCCCCCCCC.safetensors")
    folder = opened(tmp_path / "set")
    assert (folder.space, folder.state, folder.count) == ("sdxl", "scaled", 5)
    said = {}
    for latent in folder.latents(range(5)):
        try:
            latent.load()
        except SampleError as error:
            said[latent.key] = error.reason
    assert said.keys() == {"a", "zoo", "z"}
    assert "a_AAAAAAAAAAAAAAAAAAAAAA.safetensors is damaged" in said["a"]
    assert (
        "holds latents of flux1#scaled, and the folder's first file latents of sdxl#scaled"
        in (said["zoo"])
    )
    assert "z_CCCCCCCCCCCCCCCCCCCCCC.safetensors is of another tool" in said["z"]


def test_what_a_file_holds_wrong_is_told_with_its_name(tmp_path) -> None:
    np.savez(tmp_path / "a_0032x0032_sd.npz", latents=np.zeros((4, 2, 2), np.int64))
    (latent,) = opened(tmp_path).latents([0])
    with pytest.raises(SampleError, match=r"a_0032x0032_sd\.npz: latents is of int64"):
        latent.load()


def test_folders_that_are_refused(tmp_path) -> None:
    cache(tmp_path / "a_0032x0032_sd.npz")
    cache(tmp_path / "a_0032x0032_sdxl.npz")
    with pytest.raises(UsageError, match=r"several formats \(kohya's sd-scripts \(_sd\): 1, kohya"):
        opened(tmp_path)
    for names, said in (
        (["a_0032x0032_anima.npz", "a_sd3_te.npz"], "Wan 2.1's autoencoder"),
        (["a.npy", "b.npy"], r"a\.npy is a numpy array"),
        (["a.npz"], r"a\.npz is an archive of numpy arrays"),
        (["a_0032x0032_sd.npz"], r"a_0032x0032_sd\.npz is damaged"),
        (["a.pt", "b.pt"], r"a\.pt is a file of PyTorch, which may run code"),
    ):
        folder = tmp_path / names[0]
        folder.mkdir() if not folder.exists() else folder.unlink() or folder.mkdir()
        for name in names:
            (folder / name).write_bytes(b"whatever")
        with pytest.raises(StoreError, match=said):
            opened(folder)


def test_other_folders_are_none(tmp_path) -> None:
    (tmp_path / "a.png").write_bytes(b"a picture")
    save_file({"weight": torch.zeros(2)}, tmp_path / "lora.safetensors")
    assert open_foreign_folder(tmp_path, None) is None
    cache(tmp_path / "a_0032x0032_sd.npz")
    assert open_foreign_folder(tmp_path, None) is not None
    (tmp_path / "manifest.json").write_text("{}")
    assert open_foreign_folder(tmp_path, None) is None
