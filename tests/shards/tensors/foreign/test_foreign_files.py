"""Caches that trainers wrote are read with the values that they were given, and whose they are."""

from __future__ import annotations

import gzip
import json
import pickle
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from latentcli.core.errors import SampleError, StoreError, UsageError
from latentcli.core.types import Member
from latentcli.shards.tensors.foreign.formats import open_foreign
from latentcli.shards.tensors.foreign.latents import ForeignFile

DATA = Path(__file__).parents[3] / "data" / "trainers"
WANTED: dict[str, dict[str, dict]] = json.loads((DATA / "latents.json").read_text())
"""By file and key: what the trainer's writer was given."""

SPACES = {
    "kohya/sd": ("sd1", "raw"),
    "kohya/sdxl": ("sdxl", "raw"),
    "kohya/sd3_no_upscale": ("sd3", "raw"),
    "kohya/flux": ("flux1", "scaled"),
    "musubi/flux2_dev": ("flux2", "whitened"),
    "musubi/flux2_klein_4b": ("flux2", "whitened"),
    "musubi/z_image": ("flux1", "raw"),
    "simpletuner/sdxl": (None, "scaled"),
    "simpletuner/flux2": ("flux2", "whitened"),
    "ai_toolkit/flux2": ("flux2", "whitened"),
    "ai_toolkit/sdxl_flip": ("sdxl", "scaled"),
    "lightningdit": (None, "raw"),
    "comfyui": (None, "raw"),
}


def opened(path: Path, state: str | None = None) -> ForeignFile:
    found = open_foreign(path, state)
    assert found is not None
    return found[1]


def loaded(file: ForeignFile) -> dict[str, torch.Tensor]:
    found = {latent.key: latent.load() for latent in file.latents}
    assert len(found) == len(file.latents)
    return found


@pytest.mark.parametrize("name", WANTED)
def test_some_of_what_trainers_wrote(name: str) -> None:
    file = opened(DATA / name)
    folder = next(folder for folder in SPACES if name.startswith(f"{folder}/"))
    assert (file.space, file.state) == SPACES[folder]
    found = loaded(file)
    wanted = set(WANTED[name])
    assert found.keys() == wanted
    for key, latent in found.items():
        told = WANTED[name][key]
        assert list(latent.shape) == told["shape"]
        assert str(latent.dtype) == f"torch.{told['dtype']}"
        assert float(latent.double().sum()) == pytest.approx(told["sum"], abs=1e-6)
        assert latent.flatten()[:3].tolist() == pytest.approx(told["first"], rel=1e-7)


def given(golden: Path, meta: Mapping, inputs: Mapping[str, torch.Tensor]) -> dict[str, list]:
    """By file: the latents that the writer was given."""
    wanted: dict[str, list] = {}
    if golden.name == "lightningdit":
        for number, latent in enumerate(inputs["latents"]):
            name = f"latents_rank00_shard{number // 8:03d}.safetensors"
            wanted.setdefault(name, []).append(latent)
    elif golden.name == "comfyui":
        wanted["ComfyUI_00001_.latent"] = [inputs["latent"][0]]
        wanted["no_marker.latent"] = [inputs["no_marker_as_read"][0]]
    else:
        for sample in meta["samples"]:
            name = sample["input"]
            latent = inputs.get(f"{name}.latent", inputs.get(name))
            assert latent is not None
            wanted.setdefault(sample["file"], []).append(latent)
    return wanted


@pytest.mark.shared
@pytest.mark.parametrize("folder", SPACES)
def test_all_that_trainers_wrote(shared: Path, folder: str) -> None:
    golden = shared / "golden" / "trainers" / folder
    meta = json.loads((golden / "meta.json").read_text())
    wanted = given(golden, meta, load_file(golden / "inputs.safetensors"))
    assert len(wanted) >= 2
    for name, latents in wanted.items():
        file = opened(golden / "files" / name)
        assert (file.space, file.state) == SPACES[folder]
        found = list(loaded(file).values())
        assert len(found) == len(latents)
        for latent in latents:
            assert any(torch.equal(each.float(), latent.float()) for each in found), name


def test_qwen_latents_of_musubi_are_named_and_refused() -> None:
    path = DATA / "musubi" / "qwen_image" / "cat_0200x0150_qi.safetensors"
    with pytest.raises(StoreError, match=r"Qwen-Image latents in the space of Wan 2\.1's"):
        opened(path)


@pytest.mark.parametrize(
    ("arch", "space", "shape", "key"),
    [
        ("f2d", "flux2#whitened", (128, 2, 3), "latents_2x3_float32"),
        ("f2k4b", "flux2#whitened", (128, 2, 3), "latents_2x3_bfloat16"),
        ("f2k9b", "flux2#whitened", (128, 2, 3), "latents_2x3_float32"),
        ("zi", "flux1#raw", (16, 2, 3), "latents_1x2x3_float32"),
        ("fk", "flux1#scaled", (16, 1, 2, 3), "latents_1x2x3_float32"),
    ],
)
def test_every_architecture_of_musubi(tmp_path, arch, space, shape, key) -> None:
    path = tmp_path / f"a_b_x_0032x0048_{arch}.safetensors"
    latent = torch.randn(shape)
    save_file({key: latent, "latents_control_0_2x3_float32": torch.zeros(1)}, path)
    file = opened(path)
    assert file.described == f"latents of {space}"
    found = loaded(file)
    assert found.keys() == {"a_b_x"}
    assert torch.equal(found["a_b_x"], latent.reshape(shape[0], 2, 3))
    with pytest.raises(UsageError, match=f"holds {file.state} latents"):
        opened(path, "scaled" if file.state != "scaled" else "raw")


@pytest.mark.parametrize(
    ("arch", "why"),
    [
        ("qi", "Wan 2.1"),
        ("qie", "Wan 2.1"),
        ("qil", "Wan"),
        ("kr2", "Krea 2"),
        ("i4", "another order of channels"),
        ("ho1", "ho1"),
        ("hv15", "video"),
        ("fp", "FramePack"),
    ],
)
def test_architectures_that_no_model_decodes(tmp_path, arch, why) -> None:
    path = tmp_path / f"a_0032x0048_{arch}.safetensors"
    save_file({"latents_1x2x3_float32": torch.zeros(16, 1, 2, 3)}, path)
    with pytest.raises(StoreError, match=f"a latent cache of musubi-tuner: .*{why}"):
        opened(path)


@pytest.mark.parametrize(
    ("key", "shape", "why"),
    [
        ("latents_3x2_float32", (128, 2, 3), "not of the size in its name"),
        ("latents_4x2x3_float32", (16, 4, 2, 3), "is of a clip"),
        ("latents_2x3_float32", (2, 3), "a latent is"),
    ],
)
def test_what_is_wrong_in_a_file_of_musubi(tmp_path, key, shape, why) -> None:
    path = tmp_path / "a_0032x0048_f2d.safetensors"
    save_file({key: torch.zeros(shape)}, path)
    with pytest.raises(SampleError, match=why):
        loaded(opened(path))
    save_file({"varlen_vl_embed": torch.zeros(2)}, path)
    with pytest.raises(StoreError, match="holds one tensor latents_"):
        opened(path)


@pytest.mark.parametrize(
    ("version", "space"),
    [
        ("sd1", "sd1#scaled"),
        ("sdxl", "sdxl#scaled"),
        ("sd3", "sd3#scaled"),
        ("flux1", "flux1#scaled"),
        ("zimage", "flux1#scaled"),
        ("flux_kontext", "flux1#scaled"),
        ("chroma", "flux1#scaled"),
        ("flux2", "flux2#whitened"),
        ("flux2_klein_4b", "flux2#whitened"),
        ("flux2_klein_9b", "flux2#whitened"),
    ],
)
def test_every_version_of_ai_toolkit(tmp_path, version, space) -> None:
    path = tmp_path / "a_b_mzoamXfiJ7q6EzThD-baqQ.safetensors"
    latent = torch.randn(4, 2, 3).bfloat16()
    save_file({"latent": latent}, path, {"latent_space_version": version})
    file = opened(path)
    assert file.described == f"latents of {space}"
    found = loaded(file)
    assert found.keys() == {"a_b"} and torch.equal(found["a_b"], latent)


def test_versions_of_ai_toolkit_that_are_not_known(tmp_path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"latent": torch.zeros(16, 2, 2)}, path, {"latent_space_version": "qwen_image"})
    with pytest.raises(StoreError, match="qwen_image, latents in the space of Wan"):
        opened(path)
    save_file({"latent": torch.zeros(16, 2, 2)}, path, {"latent_space_version": "mine"})
    with pytest.raises(StoreError, match=r"is 'mine', and known are sd1, .*--latents and --model"):
        opened(path)
    file = opened(path, "raw")
    assert (file.space, file.state) == (None, "raw")
    pixels = torch.zeros(3, 8, 8, dtype=torch.uint8)
    save_file({"latent": pixels}, path, {"latent_space_version": "sd1"})
    with pytest.raises(SampleError, match="holds pixels"):
        loaded(opened(path))


def test_lightningdit_passes_classes_on() -> None:
    file = opened(DATA / "lightningdit" / "latents_rank00_shard000.safetensors")
    labels = load_file(file.path)["labels"].tolist()
    assert [latent.others() for latent in file.latents] == [
        (Member("cls", str(label).encode()),) for label in labels
    ]
    assert opened(file.path, "whitened").state == "whitened"
    with pytest.raises(UsageError, match="holds no moments"):
        opened(file.path, "moments")


def test_old_names_of_kohya(tmp_path) -> None:
    path = tmp_path / "cat.npz"
    latent = np.random.default_rng(0).normal(size=(4, 2, 3)).astype(np.float32)
    np.savez(path, latents=latent, original_size=np.array([48, 32]), crop_ltrb=np.zeros(4))
    file = opened(path)
    assert (file.space, file.state) == (None, "raw")
    assert np.array_equal(loaded(file)["cat"].numpy(), latent)
    np.savez(path, latents=latent)
    with pytest.raises(StoreError, match="an archive of numpy arrays"):
        opened(path)


def test_resolutions_of_kohya_are_latents_of_their_own(tmp_path) -> None:
    path = tmp_path / "a cat_10240x0768_flux.npz"
    arrays = {f"latents_{h}x{w}": np.full((16, h, w), h, np.float32) for h, w in [(2, 3), (4, 6)]}
    np.savez(path, **arrays, latents_flipped_2x3=np.zeros((16, 2, 3), np.float32))
    found = loaded(opened(path))
    assert found.keys() == {"a cat_2x3", "a cat_4x6"}
    assert found["a cat_4x6"].shape == (16, 4, 6) and found["a cat_4x6"].mean() == 4


class Trap:
    """Writes a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_nothing_of_a_pt_file_is_run(tmp_path) -> None:
    sprung, path = tmp_path / "sprung", tmp_path / "a.pt"
    for content in (Trap(sprung), {"latents": Trap(sprung)}, [torch.zeros(1), Trap(sprung)]):
        torch.save(content, path)
        with pytest.raises(StoreError, match="Loading that may run code"):
            opened(path)
        path.write_bytes(gzip.compress(path.read_bytes()))
        with pytest.raises(StoreError, match="Loading that may run code"):
            opened(path)
    for data in (pickle.dumps(Trap(sprung)), gzip.compress(pickle.dumps(Trap(sprung)))):
        path.write_bytes(data)
        with pytest.raises(StoreError, match="so it is not read"):
            opened(path)
    torch.save(torch.zeros(4, 2, 2), path, _use_new_zipfile_serialization=False)
    with pytest.raises(StoreError, match="so it is not read"):
        opened(path)
    assert not sprung.exists()


def test_pt_files_of_every_kind(tmp_path) -> None:
    path, latent = tmp_path / "ab.pt", torch.randn(4, 2, 3)
    for content in (latent, {"latents": latent, "batch": 1}):
        torch.save(content, path)
        for packed in (False, True):
            if packed:
                path.write_bytes(gzip.compress(path.read_bytes()))
            file = opened(path)
            assert (file.space, file.state) == (None, "scaled")
            assert torch.equal(loaded(file)["ab"], latent)
    assert opened(path, "raw").state == "raw"
    torch.save(torch.randn(128, 2, 3), path)
    with pytest.raises(UsageError, match="holds whitened latents"):
        opened(path, "raw")


@pytest.mark.parametrize("damage", ["cut", "empty", "other", "rank", "ints", "strides", "gzip"])
def test_damaged_pt_files(tmp_path, damage) -> None:
    path = tmp_path / "a.pt"
    torch.save(torch.randn(4, 16, 16), path)
    data = path.read_bytes()
    if damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "gzip":
        path.write_bytes(gzip.compress(data)[:-500])
    else:
        content = {
            "other": {"mean": torch.zeros(1)},
            "rank": torch.zeros(1, 4, 2, 2),
            "ints": torch.zeros(4, 2, 2, dtype=torch.int64),
            "strides": torch.zeros(1).expand(4, 5_000, 5_000),
        }
        torch.save(content[damage], path)
    with pytest.raises((StoreError, SampleError)):
        loaded(opened(path))


def test_files_of_nobody_else_are_left_alone(tmp_path) -> None:
    path = tmp_path / "plain.safetensors"
    save_file({"a": torch.zeros(4, 2, 2)}, path)
    assert open_foreign(path, None) is None
    save_file({"latents": torch.zeros(2, 4, 2, 2), "labels": torch.zeros(3)}, path)
    assert open_foreign(path, None) is None
    assert open_foreign(tmp_path / "a.png", None) is None
    for name in ("cat_f2k4b_te.safetensors", "latents_stats.pt"):
        with pytest.raises(StoreError, match="holds no latents"):
            opened(tmp_path / name)
