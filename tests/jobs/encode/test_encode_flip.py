"""--flip both: the mirrored picture's latent beside the picture's own, from one image decode."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from encodekit import pictures
from jobkit import decode, encode, encode_job, latents_of, pictures_of, tree
from PIL import Image, ImageOps
from presetkit import toy_checkpoint
from tarjobkit import tar_store

from latentcli.core.errors import UsageError
from latentcli.core.posterior import posterior_of
from latentcli.jobs.encode.job import run_encode
from latentcli.jobs.store.config import VerifyJob
from latentcli.jobs.store.verify import run_verify
from latentcli.jobs.training.dataset import LatentDataset

SIZES = ((64, 48), (48, 64)) * 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return pictures(tmp_path_factory.mktemp("pictures") / "in", SIZES)


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory, folder):
    """The same files, mirrored."""
    target = tmp_path_factory.mktemp("pictures") / "mirrored"
    return mirror(folder, target)


def mirror(folder: Path, target: Path) -> Path:
    target.mkdir()
    for path in folder.iterdir():
        ImageOps.mirror(Image.open(path)).save(target / path.name)
    return target


def by_part(store: Path) -> dict[str, dict[str, torch.Tensor]]:
    """Part to key to tensor."""
    found: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in latents_of(store).items():
        key, part = name.rsplit("/", 1)
        found.setdefault(part, {})[key] = tensor
    return found


@pytest.fixture(scope="module")
def store(tmp_path_factory, folder, model):
    store = tmp_path_factory.mktemp("store") / "flip"
    document = encode(folder, store, model, flip="both")
    # Twice the latents, and one decode of each file.
    assert document["stages"]["decode_image"]["items"] == len(SIZES)
    assert document["stages"]["encode"]["items"] == len(SIZES)
    return store


def test_it_is_what_the_mirrored_file_gives(folder, mirrored, store, model, tmp_path):
    encode(mirrored, tmp_path / "mirrored", model)
    encode(folder, tmp_path / "plain", model)
    parts = by_part(store)
    assert set(parts) == {"latent", "latent_flip"} and len(parts["latent"]) == len(SIZES)
    for key, latent in by_part(tmp_path / "mirrored")["latent"].items():
        assert torch.equal(parts["latent_flip"][key], latent)
        assert not torch.equal(parts["latent"][key], latent)
    for key, latent in by_part(tmp_path / "plain")["latent"].items():
        assert torch.equal(parts["latent"][key], latent)


def test_in_tars(folder, store, model, tmp_path):
    encode(folder, tmp_path / "tars", model, flip="both", shard_format="webdataset")
    found = {
        name.partition(":")[2]: tensor for name, tensor in tar_store(tmp_path / "tars").items()
    }
    expected = latents_of(store)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_workers_change_no_byte(folder, store, model, tmp_path):
    encode(folder, tmp_path / "store", model, flip="both", workers=2)
    assert tree(tmp_path / "store") == tree(store)


def test_moments(folder, mirrored, model, tmp_path):
    encode(folder, tmp_path / "store", model, flip="both", latents="moments")
    encode(mirrored, tmp_path / "mirrored", model, latents="moments")
    parts, other = by_part(tmp_path / "store"), by_part(tmp_path / "mirrored")
    assert set(parts) == {"mean", "logsnr", "mean_flip", "logsnr_flip"}
    for part in ("mean", "logsnr"):
        for key, values in other[part].items():
            assert torch.equal(parts[f"{part}_flip"][key], values)
    items = LatentDataset(tmp_path / "store", dtype=torch.float32, flip="both")
    moments = {part: other[part]["0000"] for part in other}
    assert torch.equal(items[0]["latent_flip"], posterior_of(moments).mode())
    drawn = LatentDataset(tmp_path / "store", sample=True, flip="both")[0]
    assert not torch.equal(drawn["latent_flip"], items[0]["latent_flip"])
    assert run_verify(VerifyJob(store=str(tmp_path / "store"), device="cpu"))["ok"]


def test_a_sample_of_it_has_noise_of_its_own(folder, store, model, tmp_path):
    encode(folder, tmp_path / "store", model, flip="both", sample=3)
    encode(folder, tmp_path / "moments", model, flip="both", latents="moments")
    parts, moments = by_part(tmp_path / "store"), by_part(tmp_path / "moments")
    modes = by_part(store)
    for key in parts["latent"]:
        noise = [parts[p][key].float() - modes[p][key].float() for p in ("latent", "latent_flip")]
        assert (noise[0] - noise[1]).abs().mean() > 0.05
        assert (noise[0] - noise[1].flip(-1)).abs().mean() > 0.05
    assert set(moments) == {"mean", "logsnr", "mean_flip", "logsnr_flip"}
    assert run_verify(VerifyJob(store=str(tmp_path / "store"), device="cpu"))["ok"]


def test_with_a_class_token(tmp_path):
    folder = pictures(tmp_path / "in", ((64, 64),) * 3)
    mirrored = mirror(folder, tmp_path / "other")
    toy_checkpoint(tmp_path, "dinac_ae")
    weights = {"weights": str(tmp_path / "dinac_ae"), "class_token": True}
    words = {"samples_per_shard": 8, **weights}
    run_encode(encode_job(folder, tmp_path / "store", "dinac_ae", flip="both", **words))
    run_encode(encode_job(mirrored, tmp_path / "mirrored", "dinac_ae", **words))
    parts, other = by_part(tmp_path / "store"), by_part(tmp_path / "mirrored")
    assert set(parts) == {"latent", "class_token", "latent_flip", "class_token_flip"}
    for part in ("latent", "class_token"):
        for key, values in other[part].items():
            assert torch.equal(parts[f"{part}_flip"][key], values)
            assert values.dtype == parts[f"{part}_flip"][key].dtype
    item = LatentDataset(tmp_path / "store", dtype=torch.float32, flip="both")[0]
    assert item["class_token_flip"].dtype == torch.float32
    assert not torch.equal(item["class_token_flip"], item["class_token"])
    assert item["latent_flip"].dtype == torch.float32


def test_items_of_a_dataset(store, folder, model, tmp_path):
    parts = by_part(store)
    items = LatentDataset(store, flip="both")
    assert torch.equal(items[1]["latent_flip"], parts["latent_flip"]["0001"])
    assert items[1]["latent_flip"].dtype == torch.bfloat16
    cast = LatentDataset(store, dtype=torch.float32, flip="both")[1]
    assert cast["latent"].dtype == cast["latent_flip"].dtype == torch.float32
    encode(folder, tmp_path / "plain", model)
    assert "latent_flip" not in LatentDataset(tmp_path / "plain")[0]


def test_verify_compares_both(store, folder, model, tmp_path):
    assert run_verify(VerifyJob(store=str(store), device="cpu"))["ok"]
    changed = pictures(tmp_path / "in", SIZES)
    encode(changed, tmp_path / "store", model, flip="both")
    # Only the mirrored half is wrong now, which a look at the latent alone would not tell.
    shard = tmp_path / "store" / "shards" / "000000.safetensors"
    from safetensors import safe_open
    from safetensors.torch import load_file, save

    with safe_open(shard, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(shard)
    tensors["0000/latent_flip"] = tensors["0000/latent"].clone()
    rewrite(tmp_path / "store", 0, save(tensors, metadata))
    document = run_verify(VerifyJob(store=str(tmp_path / "store"), device="cpu"))
    assert [problem["key"] for problem in document["problems"]] == ["0000"]


def rewrite(store: Path, unit: int, data: bytes) -> None:
    """Another shard that its record agrees with."""
    import hashlib
    import json

    shard, path = (store / "shards" / f"{unit:06d}.{kind}" for kind in ("safetensors", "json"))
    record = json.loads(path.read_text())
    shard.write_bytes(data)
    told = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    path.write_text(json.dumps({**record, **told}))


def test_decode_ignores_them(folder, store, model, tmp_path):
    encode(folder, tmp_path / "plain", model)
    document = decode(store, tmp_path / "both")
    decode(tmp_path / "plain", tmp_path / "one")
    assert document["decoded"] == len(SIZES)
    both, one = pictures_of(tmp_path / "both"), pictures_of(tmp_path / "one")
    assert both.keys() == one.keys()
    assert all((both[name] == one[name]).all() for name in one)


def test_clips_have_none(tmp_path):
    clip_files = pytest.importorskip("harness.clip_files")
    clip_files.make_clip(tmp_path / "a.mp4", 3)
    with pytest.raises(UsageError, match="--flip both is for pictures"):
        encode(tmp_path / "a.mp4", tmp_path / "store", "linear16", flip="both")
    assert not (tmp_path / "store").exists()
