"""Files of other tools: kohya's and ComfyUI's latents are read, others are called what they are."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from jobkit import decode, pictures_of
from safetensors.torch import load_file, save_file

from latentcli.core.errors import SampleError, StoreError, UsageError
from latentcli.jobs.decode.latents import LatentSource
from latentcli.jobs.decode.open_latents import open_latents

C = 8
"""Latent channels of the toy model."""


def loaded(source: LatentSource) -> dict[str, torch.Tensor]:
    found = {sample.key: sample.load() for sample in source.samples(source.units)}
    assert len(found) == source.count
    return found


def npz(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize(
    ("folder", "suffix", "space"),
    [
        ("sd", "_sd", "sd1#raw"),
        ("sdxl", "_sdxl", "sdxl#raw"),
        ("sd3_no_upscale", "_sd3", "sd3#raw"),
        ("flux", "_flux", "flux1#scaled"),
    ],
)
def test_what_kohyas_trainer_wrote(shared, folder, suffix, space):
    golden = shared / "golden" / "trainers" / "kohya" / folder
    given = load_file(golden / "inputs.safetensors")
    names = sorted((golden / "files").glob("*.npz"))
    assert len(names) > 1
    for number, path in enumerate(names):
        source = open_latents(path, None)
        assert (source.space_id, source.model) == (space, None) and path.stem.endswith(suffix)
        found = loaded(source)
        wanted = [
            t for n, t in given.items() if n.startswith(f"{number}.") and n.endswith("latent")
        ]
        key = path.name.split("_0")[0]
        if len(wanted) == 1:
            assert found.keys() == {key}
        else:
            assert found.keys() == {f"{key}_{t.shape[1]}x{t.shape[2]}" for t in wanted}
        assert all(any(torch.equal(f, w) for w in wanted) for f in found.values())


def test_what_comfyui_wrote(shared):
    golden = shared / "golden" / "trainers" / "comfyui"
    given = load_file(golden / "inputs.safetensors")
    for name, tensor in (("ComfyUI_00001_", "latent"), ("no_marker", "no_marker_as_read")):
        source = open_latents(golden / "files" / f"{name}.latent", None)
        assert (source.space, source.state) == (None, "raw")
        torch.testing.assert_close(loaded(source), {name: given[tensor][0]})


def test_a_kohya_file_is_decoded_like_its_latents(model, tmp_path):
    torch.manual_seed(0)
    latent = torch.randn(C, 2, 3)
    raw = npz(
        tmp_path / "a cat_0048x0032_sdxl.npz",
        latents=latent.numpy(),
        latents_flipped=latent.numpy(),
        original_size=np.array([48, 32]),
        crop_ltrb=np.zeros(4),
    )
    with pytest.raises(UsageError, match=r"model made it; .* of sdxl are decoded by .*taesdxl"):
        decode(raw, tmp_path / "out")
    with pytest.raises(UsageError, match=r"latents of sdxl#raw, but .* decodes local-"):
        decode(raw, tmp_path / "out", model=model)
    with pytest.raises(UsageError, match="holds raw latents"):
        decode(raw, tmp_path / "out", model=model, latents="whitened", force=True)
    decode(raw, tmp_path / "out", model=model, force=True)
    save_file({"a cat": latent}, tmp_path / "same.safetensors")
    decode(tmp_path / "same.safetensors", tmp_path / "same", model=model, latents="raw")
    found, same = pictures_of(tmp_path / "out"), pictures_of(tmp_path / "same")
    assert found.keys() == {"a cat"} and np.array_equal(found["a cat"], same["a cat"])


def test_another_presets_space_is_told_before_its_weights_are_looked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    path = npz(tmp_path / "x_0064x0064_sd.npz", latents=np.zeros((4, 8, 8), np.float32))
    with pytest.raises(UsageError, match="holds latents of sd1#raw, but taesdxl"):
        decode(path, tmp_path / "out", model="taesdxl")


def test_comfy_latents_of_several_pictures(model, tmp_path):
    latents = torch.randn(2, C, 2, 2)
    marker = {"latent_format_version_0": torch.zeros(0)}
    save_file({"latent_tensor": latents} | marker, tmp_path / "many.latent")
    found = decode(tmp_path / "many.latent", tmp_path / "out", model=model)
    assert found["decoded"] == 2
    assert pictures_of(tmp_path / "out").keys() == {"many_00000", "many_00001"}
    save_file({"latent_tensor": torch.zeros(1, 128, 2, 2)} | marker, tmp_path / "f2.latent")
    assert open_latents(tmp_path / "f2.latent", None).space_id == "flux2#whitened"
    save_file({"latent_tensor": torch.zeros(1, 16, 3, 2, 2)} | marker, tmp_path / "clip.latent")
    with pytest.raises(StoreError, match=r"has one of \[1, 16, 3, 2, 2\]"):
        decode(tmp_path / "clip.latent", tmp_path / "out", model=model)
    save_file({"other": torch.zeros(1)}, tmp_path / "other.latent")
    with pytest.raises(StoreError, match="it has none"):
        decode(tmp_path / "other.latent", tmp_path / "out", model=model)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("moments.npz", r"archive of numpy arrays, .*_sd\.npz, _sdxl\.npz"),
        ("a.npy", "a numpy array, which does not say"),
        ("a.pt", "may run code when it is loaded, so it is not read"),
        ("a.PTH", "is a file of PyTorch"),
        ("a.ckpt", "is a file of PyTorch"),
        ("a_0064x0064_anima.npz", "no model here decodes"),
        ("a_0064x0064_hi.npz", "no model here decodes"),
        ("a_sd3_te.npz", "text encoder's outputs; it holds no latents"),
        ("a_te_outputs.npz", "text encoder's outputs; it holds no latents"),
    ],
)
def test_others_are_called_what_they_are(model, tmp_path, name, said):
    (tmp_path / name).write_bytes(b"whatever")
    with pytest.raises(StoreError, match=said):
        decode(tmp_path / name, tmp_path / "out", model=model)
    assert not (tmp_path / "out").exists()


class Trap:
    """Writes a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_pickles_are_never_loaded(model, tmp_path):
    trap = tmp_path / "sprung"
    path = tmp_path / "a_0064x0064_sdxl.npz"
    path.write_bytes(pickle.dumps(Trap(trap)))
    with pytest.raises(StoreError, match="is damaged"):
        decode(path, tmp_path / "out", model=model, force=True)
    objects = np.array([Trap(trap)], dtype=object)
    np.savez(path, latents=objects)
    found = decode(path, tmp_path / "out", model=model, force=True)
    assert (found["decoded"], found["failed"]) == (0, 1)
    assert "latents is damaged" in found["failures"][0]["error"]
    assert not trap.exists()


@pytest.mark.parametrize("damage", ["no zip", "cut", "member", "header", "integers", "nothing"])
def test_damaged_npz_files(tmp_path, damage):
    path = npz(tmp_path / "a_0064x0064_sdxl.npz", latents=np.ones((4, 8, 8), np.float32))
    if damage in ("no zip", "cut"):
        data = path.read_bytes()
        path.write_bytes(b"text" if damage == "no zip" else data[: len(data) // 2])
    elif damage == "member":
        data = bytearray(path.read_bytes())
        data[300] ^= 255
        path.write_bytes(data)
    elif damage == "header":
        huge = (
            b"\x93NUMPY\x01\x00v\x00"
            + (
                "{'descr': '<f4', 'fortran_order': False, 'shape': (4, 2000000, 2000000), }".ljust(
                    117
                )
                + "\n"
            ).encode()
        )
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("latents.npy", huge)
    elif damage == "integers":
        npz(path, latents=np.ones((4, 8, 8), np.int64))
    else:
        npz(path, crop_ltrb=np.zeros(4))
    with pytest.raises((StoreError, SampleError), match=r"damaged|not a latent"):
        loaded(open_latents(path, None))
