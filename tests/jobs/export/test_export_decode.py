"""Pictures that are decoded from an export are those that are decoded from its store.

Each format is read by the library that it is for, or as its trainer's code reads it, and what that
gives is brought to the latents of the model by the formula that the trainer has for it.
"""

from __future__ import annotations

import importlib
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exportkit import job_for, samples_for, store_for, vars_of
from harness.made_up_stores import Made
from jobkit import decode, pictures_of
from presetkit import toy_checkpoint
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from latentcli.exports.formats import NAMES, export_format
from latentcli.jobs.export.job import run_export
from latentcli.jobs.inference.engine import Engine, decode_batch, load_engine
from latentcli.jobs.settings.model import DecodeSettings

MODELS = {
    "sd1": "taesd",
    "sdxl": "taesdxl",
    "sd3": "taesd3",
    "flux1": "taef1",
    "flux2": "taef2",
    # There is no model of this space: any decoder of 16 channels tells the latents apart.
    "wan2.1": "taesd3",
}
OWN: dict[str, Callable[[Tensor], Tensor]] = {
    "sd1": lambda z: z * 0.18215,
    "sdxl": lambda z: z * 0.13025,
    "sd3": lambda z: (z - 0.0609) * 1.5305,
    "flux1": lambda z: (z - 0.1159) * 0.3611,
}
"""From raw latents to those of the model, in the numbers that the trainers have."""
LEVELS = {"float32": 1, "float16": 2, "bfloat16": 3}
"""How many of 255 levels a picture may be off where something was rounded; another state, or
another picture, is off by more than APART."""
APART = 20
COUNT = 3
Pictures = dict[str, np.ndarray]


def kohya(folder: Path, keys: Sequence[str]) -> Iterator[Tensor]:
    """By the path of the picture; the name of the array ends in the size, or is bare."""
    for key in keys:
        (path,) = folder.glob(f"{key}_0064x0064_*.npz")
        arrays = np.load(path)
        bare = path.stem.endswith(("_sd", "_sdxl"))
        (name,) = (name for name in arrays if name.split("_")[0] == "latents")
        assert bare == (name == "latents")
        yield torch.from_numpy(arrays[name])


def musubi(folder: Path, keys: Sequence[str]) -> Iterator[Tensor]:
    """By the stem: size and architecture are the last two parts of the name."""
    files = {path.stem.rsplit("_", 2)[0]: path for path in folder.glob("*.safetensors")}
    for key in keys:
        ((name, latent),) = load_file(files[key.rpartition("/")[2]]).items()
        assert name.startswith("latents_")
        yield latent


def simpletuner(folder: Path, keys: Sequence[str]) -> Iterator[Tensor]:
    """By the hash of the stem, in the picture's folder."""
    for key in keys:
        parent, _, stem = key.rpartition("/")
        path = folder / "vae" / parent / f"{sha256(stem.encode()).hexdigest()}.pt"
        yield torch.load(path, weights_only=True)


def ai_toolkit(folder: Path, keys: Sequence[str]) -> Iterator[Tensor]:
    """By the stem, in a folder beside the pictures."""
    for key in keys:
        parent, _, stem = key.rpartition("/")
        (path,) = (folder / parent / "_latent_cache").glob(f"{stem}_*.safetensors")
        yield load_file(path)["latent"]


def comfyui(folder: Path, keys: Sequence[str]) -> Iterator[Tensor]:
    """Times 1 where the marker is there, and else over SD 1's factor."""
    for key in keys:
        tensors = load_file(folder / f"{key.rpartition('/')[2]}.latent")
        factor = 1.0 if "latent_format_version_0" in tensors else 1 / 0.18215
        yield tensors["latent_tensor"][0].float() * factor


def mds(folder: Path, keys: Sequence[str]) -> Iterator[Tensor]:
    yield from by_key(of_files("read_mds", folder), keys)


def litdata(folder: Path, keys: Sequence[str]) -> Iterator[Tensor]:
    yield from by_key(of_files("read_litdata", folder), keys)


def of_files(reader: str, folder: Path) -> list[dict[str, Any]]:
    """The rows that a reader of tests/exports gives."""
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    found: list[dict[str, Any]] = getattr(importlib.import_module("readers"), reader)(files)
    return found


def webdataset(folder: Path, keys: Sequence[str]) -> Iterator[Tensor]:
    import webdataset

    urls = sorted(map(str, folder.glob("*.tar")))
    rows = webdataset.WebDataset(urls, shardshuffle=False).decode()
    found = [{"key": row["json"]["key"], "latent": row["npy"]} for row in rows]
    yield from by_key(found, keys)


def webshart(folder: Path, keys: Sequence[str]) -> Iterator[Tensor]:
    """By the offsets in the index, of whole tars."""
    rows = []
    for path in sorted(folder.glob("*.tar")):
        data = path.read_bytes()
        for entry in json.loads(path.with_suffix(".json").read_text())["files"].values():
            if entry["path"].endswith(".npy"):
                member = data[entry["offset"] : entry["offset"] + entry["length"]]
                about = entry["json_metadata"]
                rows.append({"key": about["key"], "latent": np.load(io.BytesIO(member))})
    yield from by_key(rows, keys)


def parquet(folder: Path, keys: Sequence[str]) -> Iterator[Tensor]:
    """As nested lists, which is what datasets makes arrays of."""
    import pyarrow.parquet as pq

    paths = sorted(folder.glob("*.parquet"))
    rows = [row for path in paths for row in pq.read_table(path).to_pylist()]
    yield from by_key([row | {"latent": np.array(row["latent"], "float32")} for row in rows], keys)


def fastvideo(folder: Path, keys: Sequence[str]) -> Iterator[Tensor]:
    """A clip of one frame, as float32 whatever the column of dtypes says."""
    import pyarrow.parquet as pq

    rows = []
    for path in sorted(folder.rglob("*.parquet")):
        for row in pq.read_table(path).to_pylist():
            flat = np.frombuffer(row["vae_latent_bytes"], np.float32).copy()
            clip = flat.reshape(row["vae_latent_shape"])
            rows.append({"key": row["id"], "latent": clip[:, 0]})
    yield from by_key(rows, keys)


def by_key(rows: Sequence[dict[str, Any]], keys: Sequence[str]) -> Iterator[Tensor]:
    found = {row["key"]: torch.as_tensor(deepcopy(row["latent"])) for row in rows}
    assert len(found) == len(rows) == len(keys)
    return (found[key] for key in keys)


def lightningdit(folder: Path, keys: Sequence[str]) -> Iterator[Tensor]:
    """In order; normalised as it is trained on, and back, as it is decoded."""
    statistics = torch.load(folder / "latents_stats.pt", weights_only=True)
    mean, std = statistics["mean"], statistics["std"]
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for row in range(file.get_slice("labels").get_shape()[0]):
                feature = (file.get_slice("latents")[row : row + 1] - mean) / std
                yield (feature * std + mean)[0]


def mean_and_std(folder: Path, keys: Sequence[str]) -> Iterator[Tensor]:
    """In order of the names; a sample of no noise."""
    for path in sorted(folder.rglob("*.npy")):
        mean, _ = np.split(np.load(path), 2)
        yield torch.from_numpy(mean)


def repa(folder: Path, keys: Sequence[str]) -> Iterator[Tensor]:
    return (latent * 0.18215 for latent in mean_and_std(folder / "vae-sd", keys))


def fast_dit(folder: Path, keys: Sequence[str]) -> Iterator[Tensor]:
    """By number; the leading axis is the trainer's."""
    for number in range(len(keys)):
        yield torch.from_numpy(np.load(folder / "imagenet256_features" / f"{number}.npy"))[0]


def mar(folder: Path, keys: Sequence[str]) -> Iterator[Tensor]:
    """By the picture, in the folder of its class; the mode of the posterior."""
    for key in keys:
        (path,) = folder.rglob(f"{key.rpartition('/')[2]}.*.npz")
        mean, _ = np.split(np.load(path)["moments"], 2)
        yield torch.from_numpy(mean)


READERS: dict[str, Callable[[Path, Sequence[str]], Iterator[Tensor]]] = {
    "kohya": kohya,
    "musubi": musubi,
    "simpletuner": simpletuner,
    "ai-toolkit": ai_toolkit,
    "comfyui": comfyui,
    "mds": mds,
    "litdata": litdata,
    "webdataset": webdataset,
    "webshart": webshart,
    "parquet": parquet,
    "fastvideo": fastvideo,
    "lightningdit": lightningdit,
    "edm2": mean_and_std,
    "repa": repa,
    "fast-dit": fast_dit,
    "mar": mar,
}
RAW = {
    *(("kohya", arch) for arch in ("sd", "sdxl", "sd3")),
    ("musubi", "z_image"),
    *(("comfyui", arch) for arch in ("sd1", "sdxl", "sd3", "flux1")),
    ("lightningdit", "any"),
    *(("edm2", arch) for arch in ("sd", "sdxl")),
    ("mar", "any"),
}
"""What gives raw latents, of which the trainer, or its user, makes those of the model."""
DECODED = ("kohya", "musubi", "simpletuner", "ai-toolkit", "comfyui", "lightningdit")
"""What `decode` reads as well."""


def cases() -> list[tuple[str, str, str, str]]:
    """(format, variant, space, dtype) of each variant, in each dtype of one for each space."""
    found, known = [], set()
    for name in NAMES:
        for variant in export_format(name).variants:
            for space in variant.spaces or ("sd1", "flux1"):
                dtypes = ("float32",) if (name, space) in known else export_format(name).dtypes
                found += [(name, variant.name, space, dtype) for dtype in dtypes]
                known.add((name, space))
    return found


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    for name in set(MODELS.values()):
        toy_checkpoint(folder, name)
    return folder


@pytest.fixture(scope="module")
def engines(weights):
    return {
        space: load_engine(name, weights=str(weights / name), device="cpu")
        for space, name in MODELS.items()
    }


def test_every_format_has_a_reader():
    assert READERS.keys() == set(NAMES)


@pytest.mark.parametrize("name, arch, space, dtype", cases())
def test_pictures_are_those_of_the_store(
    name, arch, space, dtype, weights, engines, tmp_path, monkeypatch
):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "exports"))
    format, is_raw = export_format(name), (name, arch) in RAW
    has_moments = "moments" in format.needs
    # Moments are raw, and those of a picture are larger than the model's own latents.
    factor = 5 if has_moments else 1
    samples = [as_stored(one, factor) for one in samples_for(format, space, count=COUNT)]
    store = store_for(tmp_path / "s.latents", format, space, samples, arch)
    direct = decoded(store, tmp_path / "direct", space, weights)
    out, keys = tmp_path / "out", [one.key for one in samples]
    run_export(job_for(format, store, out, arch=arch, file_dtype=dtype))

    given = [latent.float() for latent in READERS[name](out, keys)]
    own = map(OWN[space], given) if is_raw else given
    read = decoded_latents(engines[space], own, keys)
    # The store has bfloat16, which these dtypes hold as it is.
    is_same = not (is_raw or has_moments or name == "fast-dit")
    levels = 0 if is_same and dtype in ("float32", "bfloat16") else LEVELS[dtype]
    for key, picture in direct.items():
        assert levels_between(read[key], picture) <= levels
        others = [other for name, other in direct.items() if name != key]
        assert min(levels_between(read[key], other) for other in others) > APART
    if space in OWN:
        # As it would be taken by who thinks that it is in the other state.
        wrong = given if is_raw else map(OWN[space], given)
        taken = decoded_latents(engines[space], wrong, keys)
        assert all(levels_between(taken[key], direct[key]) > APART for key in keys)
    if name in DECODED:
        again = decoded(out, tmp_path / "again", space, weights).values()
        for picture in direct.values():
            assert min(levels_between(picture, other) for other in again) <= levels


def as_stored(one: Made, factor: int) -> Made:
    """A sample whose tensors are bfloat16, as stores have them, and so many times as large."""
    parts = {name: (part * factor).bfloat16() for name, part in one.parts.items()}
    return Made(**(vars_of(one) | {"parts": parts}))


def decoded(source: Path, folder: Path, space: str, weights: Path) -> Pictures:
    """The pictures of a source of latents, by the model of a space."""
    model = MODELS[space]
    # A batch of one: the last bit of a picture may depend on those that it is decoded with.
    how = {"model": model, "weights": str(weights / model), "batch_size": 1, "force": True}
    decode(source, folder, **how)
    found = pictures_of(folder)
    assert len(found) == COUNT and all(picture.std() > 1 for picture in found.values())
    return found


def decoded_latents(engine: Engine, latents: Iterable[Tensor], keys: Sequence[str]) -> Pictures:
    """The pictures of latents that are the model's own, in the order of their keys."""
    found = {}
    for key, latent in zip(keys, latents, strict=True):
        (picture,) = decode_batch(engine, latent[None], [key], DecodeSettings())
        found[key] = picture.permute(1, 2, 0).numpy()
    return found


def levels_between(one: np.ndarray, other: np.ndarray) -> int:
    """The largest difference of two pictures, in levels of 255."""
    return int(np.abs(one.astype(int) - other.astype(int)).max())
