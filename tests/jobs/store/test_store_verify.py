"""Every kind of damage to a store is reported, and a sound store is not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from jobkit import encode, latents_of, toy_pictures
from PIL import Image

from latentcli.core.errors import StoreError, WeightsError
from latentcli.core.types import Row
from latentcli.jobs.store.config import VerifyJob
from latentcli.jobs.store.inspect import inspect_store
from latentcli.jobs.store.verify import relative_rms, run_verify, spread


def verify(store: Path, **options: object) -> dict:
    return run_verify(VerifyJob(store=str(store), device="cpu", **options))


@pytest.fixture
def pictures(tmp_path):
    return toy_pictures(tmp_path / "pictures", 10)


@pytest.fixture
def store(tmp_path, pictures, model):
    encode(pictures, tmp_path / "store", model)
    return tmp_path / "store"


@pytest.mark.parametrize("kind", ["mixed_store", "moments_store", "raw_store"])
def test_a_sound_store(kind, request):
    found = verify(request.getfixturevalue(kind))
    assert found["ok"] and found["problems"] == []
    assert (found["inputs"], found["encoded"], found["failed"], found["shards"]) == (25, 23, 2, 7)
    again = found["reencoded"]
    assert again["samples"] == 8 if "samples" in again else True
    json.dumps(found, allow_nan=False)


def test_a_sound_store_of_samples(pictures, model, tmp_path):
    encode(pictures, tmp_path / "sampled", model, sample=9)
    assert verify(tmp_path / "sampled")["ok"]


def problems(store: Path, **options: object) -> str:
    found = verify(store, **options)
    assert found["ok"] is False
    return "\n".join(item["problem"] for item in found["problems"])


def test_a_changed_byte(store):
    shard = store / "shards" / "000001.safetensors"
    data = bytearray(shard.read_bytes())
    data[-5] ^= 1
    shard.write_bytes(data)
    assert "000001.safetensors is not what was written" in problems(store)


def test_a_shard_that_is_gone(store):
    (store / "shards" / "000002.safetensors").unlink()
    assert "000002.safetensors" in problems(store)


def test_a_record_that_is_gone(store):
    (store / "shards" / "000000.json").unlink()
    assert "000000.json is missing: the unit is not done" in problems(store)


def test_a_shard_that_is_cut_short(store):
    shard = store / "shards" / "000000.safetensors"
    shard.write_bytes(shard.read_bytes()[:-10])
    assert "bytes, its commit record says" in problems(store)


def test_a_changed_input(store, pictures):
    path = pictures / "000" / "000000.jpg"
    with Image.open(path) as image:
        image.rotate(180).save(path)
    (pictures / "000" / "000001.jpg").touch()
    found = verify(store)
    assert found["ok"] and found["reencoded"]["changed"] == 1
    assert (found["sources"]["changed"], found["sources"]["gone"]) == (1, 0)
    assert found["sources"]["changed_examples"] == [str(path)]


def test_an_input_that_is_gone(store, pictures):
    path = pictures / "000" / "000000.jpg"
    path.unlink()
    found = verify(store, samples=20)
    assert found["ok"] and found["reencoded"]["unreadable"] == 1
    assert (found["sources"]["changed"], found["sources"]["gone"]) == (0, 1)
    assert found["sources"]["gone_examples"] == [str(path)]
    told = inspect_store(str(store))["sources"]
    assert (told["gone"], told["changed"], told["missing_roots"]) == (1, None, [])


def test_a_dataset_that_is_away(store, pictures):
    pictures.rename(pictures.with_name("away"))
    found = verify(store)
    assert found["ok"] and found["sources"]["missing_roots"] == [str(pictures)]
    assert found["sources"]["gone"] == 0
    assert inspect_store(str(store))["sources"]["missing_roots"] == [str(pictures)]


def test_wrong_latents_with_right_digests(store):
    """A store that is whole but wrong, as a job with wrong weights would have made it."""
    import hashlib

    from safetensors import safe_open

    from latentcli.shards.tensors.write import write_safetensors

    shard, record = (store / "shards" / f"000000.{s}" for s in ("safetensors", "json"))
    with safe_open(shard, "pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name).neg() for name in file.keys()}  # noqa: SIM118
    write_safetensors(shard, tensors, metadata)
    document = json.loads(record.read_text())
    document["sha256"] = hashlib.sha256(shard.read_bytes()).hexdigest()
    record.write_text(json.dumps(document))
    assert verify(store, samples=0)["ok"]
    assert "000/000000" in problems(store)


def test_unfinished_and_no_stores(store, tmp_path):
    manifest = json.loads((store / "manifest.json").read_text())
    (store / "manifest.json").write_text(json.dumps(manifest | {"status": "running"}))
    assert "not finished" in problems(store)
    with pytest.raises(StoreError, match="not a latent store"):
        verify(tmp_path / "pictures")
    with pytest.raises(StoreError, match="no such folder"):
        verify(tmp_path / "nowhere")


def test_other_weights_are_told_apart(store, model, other_model):
    with pytest.raises(WeightsError, match="made with"):
        verify(store, weights=other_model)
    copy = store.parent / "copied model"
    shutil.copytree(model, copy)
    assert verify(store, weights=str(copy))["ok"]


def test_spread():
    rows = [Row(str(i), "/s", "ok") for i in range(10)]
    for count in range(1, 13):
        keys = [row.key for row in spread(rows, len(rows), count)]
        assert len(keys) == len(set(keys)) == min(count, 10)
        assert keys == sorted(keys, key=int)
        if count > 1:
            assert (keys[0], keys[-1]) == ("0", "9")
    assert spread([], 0, 3) == []


def test_relative_rms(mixed_store):
    latent = next(iter(latents_of(mixed_store).values())).float()
    assert relative_rms(latent, latent) == 0
    assert relative_rms(1.01 * latent, latent) == pytest.approx(0.01, rel=1e-3)
    assert relative_rms(latent[:1], latent) == 1
    assert relative_rms(torch.zeros(2), torch.zeros(2)) == 0
