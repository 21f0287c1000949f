"""Exports of whole stores, read back as LightningDiT, EDM2, REPA, fast-DiT and MAR read them."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from exportkit import samples_for, store_for, vars_of
from harness.made_up_stores import SPACES, Made, made, noise, write_store
from PIL import Image
from safetensors import safe_open

from latentcli.core.errors import StoreError, UsageError
from latentcli.exports.formats import export_format
from latentcli.jobs.export.job import run_export
from latentcli.jobs.export.options import ExportJob
from latentcli.jobs.export.write import unfinished

SIZE = {"resize": "crop", "size": [64, 64], "divisor": 8}
FACTOR = 0.18215


def export(store: Path, to: str, out: Path, **more) -> dict:
    return run_export(ExportJob(store=str(store), to=to, output=str(out), **more))


def lightningdit_item(folder: Path, index: int, flip: bool) -> tuple[torch.Tensor, int]:
    """As ImgLatentDataset has it, with latent_norm and a multiplier of 1."""
    statistics = torch.load(folder / "latents_stats.pt")
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            count = file.get_slice("labels").get_shape()[0]
            if index >= count:
                index -= count
                continue
            name = "latents_flip" if flip else "latents"
            feature = file.get_slice(name)[index : index + 1]
            label = file.get_slice("labels")[index : index + 1]
            return ((feature - statistics["mean"]) / statistics["std"])[0], int(label)
    raise IndexError


def edm2_items(folder: Path) -> tuple[list[str], np.ndarray, list | None]:
    """As ImageFolderDataset has it: sorted names, one shape, labels looked up by name."""
    found = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.suffix in (".npy", ".png")
    )
    labels = json.loads((folder / "dataset.json").read_text())["labels"]
    ordered = None if labels is None else [dict(map(tuple, labels))[name] for name in found]
    return found, np.stack([np.load(folder / name) for name in found]), ordered


def gaussian_samples(spread: str, flips: bool = False, count: int = 5) -> list[Made]:
    """Moments of raw SD latents, in two folders."""
    rows = []
    for i in range(count):
        parts = {"mean": noise(4, 8, 8, seed=i) * 5, spread: noise(4, 8, 8, seed=50 + i)}
        if flips:
            parts |= {f"{name}_flip": part.flip(-1) for name, part in parts.items()}
        one = made(f"n{i % 2}/p{i}", parts["mean"])
        rows.append(Made(**(vars_of(one) | {"parts": parts})))
    return sorted(rows, key=lambda one: one.key)


def moments_store(path: Path, spread: str, flips: bool = False) -> tuple[Path, list[Made]]:
    rows = gaussian_samples(spread, flips)
    latents = {"moments": ["mean", spread], "flip": flips}
    return write_store(path, rows, "sd1", "moments", preprocess=SIZE, latents=latents), rows


def expected(parts, end: str = "") -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation of the raw latent, written out from the definitions."""
    if f"logvar{end}" in parts:
        return parts[f"mean{end}"], (parts[f"logvar{end}"] / 2).exp()
    logsnr = parts[f"logsnr{end}"]
    return parts[f"mean{end}"] * logsnr.sigmoid().sqrt(), (-logsnr).sigmoid().sqrt()


@pytest.mark.parametrize("state", ["scaled", "raw"])
def test_lightningdit(state, tmp_path):
    mean, std = SPACES["sd1"][1]
    raw = [noise(4, 8, 8, seed=i) + i for i in range(7)]
    stored = raw if state == "raw" else [(latent - mean) / std for latent in raw]
    rows = [made(f"c{i}/p", latent, fields={"cls": 10 - i}) for i, latent in enumerate(stored)]
    store = write_store(tmp_path / "s.latents", rows, "sd1", state, preprocess=SIZE)
    document = export(store, "lightningdit", tmp_path / "out", samples_per_file=3)
    assert document["latent_space"] == "sd1#raw" and document["steps"] == 3
    assert "sees no mirrored pictures" in document["advice"][1]
    whole = torch.stack(raw)
    centre, spread = whole.mean((0, 2, 3)), whole.transpose(0, 1).flatten(1).std(1)
    for i, latent in enumerate(raw):
        for flip in (False, True):
            feature, label = lightningdit_item(tmp_path / "out", i, flip)
            wanted = (latent - centre[:, None, None]) / spread[:, None, None]
            torch.testing.assert_close(feature, wanted, rtol=1e-4, atol=1e-4)
            assert label == 10 - i
    scaled = export(store, "lightningdit", tmp_path / "scaled", latents="scaled")
    assert scaled["latent_space"] == "sd1#scaled"
    with safe_open(tmp_path / "scaled" / "latents_rank00_shard000000.safetensors", "pt") as file:
        torch.testing.assert_close(file.get_tensor("latents"), (whole - mean) / std)


def test_lightningdit_with_flips(tmp_path):
    rows = []
    for i in range(3):
        one = made(f"c{i}/p", noise(4, 8, 8, seed=i))
        flip = {"latent_flip": noise(4, 8, 8, seed=9 + i)}
        rows.append(Made(**(vars_of(one) | {"parts": {**one.parts, **flip}})))
    store = write_store(
        tmp_path / "s.latents", rows, "sd1", "raw", preprocess=SIZE, latents={"flip": True}
    )
    document = export(store, "lightningdit", tmp_path / "out")
    assert len(document["advice"]) == 1
    with safe_open(tmp_path / "out" / "latents_rank00_shard000000.safetensors", "pt") as file:
        for part in ("latent", "latent_flip"):
            wanted = torch.stack([one.parts[part] for one in rows])
            assert torch.equal(file.get_tensor(part.replace("latent", "latents", 1)), wanted)


@pytest.mark.parametrize("spread", ["logvar", "logsnr"])
def test_edm2_and_repa(spread, tmp_path):
    store, rows = moments_store(tmp_path / "s.latents", spread)
    document = export(store, "edm2", tmp_path / "edm2")
    names, arrays, labels = edm2_items(tmp_path / "edm2")
    assert names[:2] == [f"00000/img-mean-std-0000000{i}.npy" for i in range(2)]
    for array, one in zip(arrays, rows, strict=True):
        mean, std = expected(one.parts)
        np.testing.assert_allclose(array, torch.cat([mean, std]).numpy(), rtol=1e-6)
    assert labels == [0, 0, 0, 1, 1]
    told = json.loads((tmp_path / "edm2" / "raw_statistics.json").read_text())
    np.testing.assert_allclose(told["raw_mean"], arrays[:, :4].mean((0, 2, 3)), atol=1e-4)
    variance = arrays[:, :4].var((0, 2, 3)) + (arrays[:, 4:] ** 2).mean((0, 2, 3))
    np.testing.assert_allclose(told["raw_std"], np.sqrt(variance), atol=1e-4)
    assert any(f"raw_std={told['raw_std']}" in line for line in document["advice"])
    export(store, "repa", tmp_path / "repa")
    again, values, classes = edm2_items(tmp_path / "repa" / "vae-sd")
    assert again == names and classes == labels
    np.testing.assert_array_equal(values, arrays)


def test_repas_pictures_pair_by_position(tmp_path):
    rows = []
    for i, one in enumerate(gaussian_samples("logvar")):
        path = tmp_path / "in" / f"{one.key}.{'png' if i % 2 else 'jpg'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64), (i * 20, 0, 0)).save(path)
        rows.append(Made(**(vars_of(one) | {"source": str(path), "fields": {"caption": "x"}})))
    latents = {"moments": ["mean", "logvar"]}
    store = write_store(
        tmp_path / "s.latents", rows, "sd1", "moments", preprocess=SIZE, latents=latents
    )
    out = tmp_path / "repa"
    export(store, "repa", out, link_images=True)
    pictures = sorted(path for path in (out / "images").rglob("*") if not path.is_dir())
    features = sorted((out / "vae-sd").rglob("*.npy"))
    assert len(pictures) == len(features)
    for picture, feature, one in zip(pictures, features, rows, strict=True):
        assert picture.resolve() == Path(one.source)
        np.testing.assert_array_equal(np.load(feature)[:4], one.parts["mean"].numpy())


def test_fast_dit(tmp_path):
    raw = [noise(4, 8, 8, seed=i) * 5 for i in range(12)]
    rows = [made(f"n{i}", latent, fields={"label": i * 3}) for i, latent in enumerate(raw)]
    store = write_store(tmp_path / "s.latents", rows, "sd1", "raw", preprocess=SIZE)
    export(store, "fast-dit", tmp_path / "out")
    features, labels = (
        sorted(path.name for path in (tmp_path / "out" / f"imagenet256_{name}").iterdir())
        for name in ("features", "labels")
    )
    assert features == labels and features[2] == "10.npy"
    for name in features:
        feature = np.load(tmp_path / "out" / "imagenet256_features" / name)
        label = np.load(tmp_path / "out" / "imagenet256_labels" / name)
        number = int(label[0]) // 3
        assert feature.shape == (1, 4, 8, 8) and feature.dtype == np.float32
        assert label.shape == (1,) and label.dtype == np.int64
        np.testing.assert_allclose(feature[0], raw[number].numpy() * FACTOR, rtol=1e-5)


@pytest.mark.parametrize("spread", ["logvar", "logsnr"])
@pytest.mark.parametrize("flips", [False, True])
def test_mar(spread, flips, tmp_path):
    store, rows = moments_store(tmp_path / "s.latents", spread, flips)
    document = export(store, "mar", tmp_path / "out")
    folders = sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_dir())
    assert folders == ["n0", "n1"]
    for one in rows:
        arrays = np.load(tmp_path / "out" / f"{one.key}.png.npz")
        for key, end in (("moments", ""), ("moments_flip", "_flip" if flips else "")):
            mean, logvar = np.split(arrays[key], 2)
            wanted_mean, wanted_std = expected(one.parts, end)
            np.testing.assert_allclose(mean, wanted_mean.numpy(), rtol=1e-6)
            np.testing.assert_allclose(np.exp(logvar / 2), wanted_std.numpy(), rtol=1e-5)
    values = torch.stack([expected(one.parts)[0] for one in rows])
    spreads = torch.stack([expected(one.parts)[1] for one in rows])
    std = float((values.var(correction=0) + spreads.square().mean()).sqrt())
    assert any(f"{1 / std:.4f}" in line for line in document["advice"])


@pytest.mark.parametrize("to", ["fast-dit", "webdataset"])
def test_folders_have_the_same_numbers_whatever_could_be_encoded(to, tmp_path):
    """A class whose pictures all failed keeps its number; a broken file in no folder has none."""
    names = ["ant/1", "bee/2", "bee/3", "cow/4", "loose"]
    found = {}
    for what, lost in (("whole", {"loose"}), ("part", {"loose", "bee/2", "bee/3"})):
        rows = [
            Made(**(vars_of(made(name, noise(4, 8, 8, seed=i))) | status(name in lost)))
            for i, name in enumerate(names)
        ]
        store = write_store(tmp_path / f"{what}.latents", rows, "sd1", "raw", preprocess=SIZE)
        document = export(store, to, tmp_path / what, labels="folder")
        found[what] = classes_of(to, tmp_path / what)
        assert document["samples"] == len(found[what]) == len(names) - len(lost)
    assert sorted(found["whole"]) == [0, 1, 1, 2] and sorted(found["part"]) == [0, 2]


def status(is_lost: bool) -> dict[str, str]:
    return {"status": "failed"} if is_lost else {}


def classes_of(to: str, folder: Path) -> list[int]:
    """The classes in an export, as its readers find them."""
    if to == "fast-dit":
        return [int(np.load(path)[0]) for path in (folder / "imagenet256_labels").iterdir()]
    with tarfile.open(folder / "shard-000000.tar") as tar:
        members = {name: tar.extractfile(name) for name in tar.getnames()}
        return [int(file.read()) for name, file in members.items() if name.endswith(".cls")]


REFUSED = [
    ("lightningdit", {"fields": {}, "folder": ""}, UsageError, "needs a class for each sample"),
    ("lightningdit", {"shape": (8, 6)}, UsageError, "square latents"),
    ("fast-dit", {"sizes": True}, UsageError, "latents of one size"),
    ("edm2", {}, UsageError, "--latents moments"),
    ("mar", {}, UsageError, "--latents moments"),
    ("fast-dit", {"gap": True}, StoreError, "has no class"),
]


@pytest.mark.parametrize("to, what, error, words", REFUSED)
def test_what_a_trainer_cannot_use(to, what, error, words, tmp_path):
    rows = []
    for i in range(3):
        h, w = (8, 8 + 2 * i) if "sizes" in what else what.get("shape", (8, 8))
        fields = {} if "gap" in what and i == 1 else what.get("fields", {"cls": 1})
        rows.append(made(f"{what.get('folder', 'a/')}{i}", noise(4, h, w, seed=i), fields=fields))
    store = write_store(tmp_path / "s.latents", rows, "sd1", "raw", preprocess=SIZE)
    with pytest.raises(error, match=words):
        export(store, to, tmp_path / "out")
    written = [path for path in (tmp_path / "out").rglob("*.*") if path.is_file()]
    assert {path.suffix for path in written} <= {"", ".jsonl"}


def test_a_folder_of_other_files_is_refused(tmp_path):
    format = export_format("fast-dit")
    store = store_for(tmp_path / "s.latents", format, "sd1", samples_for(format, "sd1"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "other.npy").touch()
    with pytest.raises(UsageError, match="is not empty"):
        export(store, "fast-dit", tmp_path / "out")
    export(store, "fast-dit", tmp_path / "new")
    # What a kill leaves shifts no labels, and is gone after the next run.
    one = next(path for path in (tmp_path / "new").rglob("*.npy"))
    Path(unfinished(str(one))).touch()
    one.unlink()
    export(store, "fast-dit", tmp_path / "new")
    assert one.exists()
    assert not [*(tmp_path / "new").rglob(".tmp-*")]


def test_samples_of_a_posterior_are_refused_where_the_trainer_draws_them(tmp_path):
    store, rows = moments_store(tmp_path / "s.latents", "logvar")
    with pytest.raises(UsageError, match="leave out --sample"):
        export(store, "mar", tmp_path / "out", sample=1)
    export(store, "fast-dit", tmp_path / "one", sample=1)
    export(store, "fast-dit", tmp_path / "two", sample=2)
    first, second = (
        np.load(tmp_path / name / "imagenet256_features" / "0.npy")[0] / FACTOR
        for name in ("one", "two")
    )
    mean, std = (part.numpy() for part in expected(rows[0].parts))
    assert not np.array_equal(first, second)
    for drawn in (first, second):
        assert abs(((drawn - mean) / std).std() - 1) < 0.25
