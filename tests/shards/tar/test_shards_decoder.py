"""What webdataset and Hugging Face's datasets make of our tars."""

from __future__ import annotations

import io
import json

import pytest
import storekit
import torch
import webdataset
from safetensors.torch import save

import latentcli
from latentcli import load_latents, safetensors_decoder
from latentcli.core.member_names import key_of_member
from latentcli.core.types import Member
from latentcli.shards.storage.atomic_write import atomic_write
from latentcli.shards.tar.write import TarSample, tar_chunks

KEYS = (
    "0001",
    "photo.2021.01",
    "photo.2021.02",
    "train/v1.0/ä.b",
    "__hidden__/x",
    "a/.dot",
    "50%41",
)
BYTES = bytes(range(256))


def sample(key: str) -> TarSample:
    return TarSample(
        name=key,
        tensors={"latent": storekit.latent(key), "class_token": torch.full((3,), 0.5)},
        metadata={"format": "latentcli", "key": key},
        document={"source": f"/data/{key}.jpg", "crop": [0, 1, 8, 9], "latent_shape": [4, 2, 3]},
        others=(Member("txt", key.encode()), Member("json", b'{"n":  1}\n'), Member("bin", BYTES)),
    )


@pytest.fixture
def tar(tmp_path):
    atomic_write(tmp_path / "000000.tar", tar_chunks(map(sample, KEYS)))
    return tmp_path / "000000.tar"


def test_webdataset_reads_samples_whole(tar):
    found = list(webdataset.WebDataset(str(tar), shardshuffle=False))
    assert [key_of_member(f"{item['__key__']}.x")[0] for item in found] == list(KEYS)
    for key, item in zip(KEYS, found, strict=True):
        fields = {name for name in item if not name.startswith("__")}
        assert fields == {"latent.safetensors", "latent.json", "txt", "json", "bin"}
        assert (item["txt"], item["json"], item["bin"]) == (key.encode(), b'{"n":  1}\n', BYTES)


def test_webdataset_decodes_with_our_decoder(tar):
    url = str(tar)
    found = list(webdataset.WebDataset(url, shardshuffle=False).decode(safetensors_decoder))
    assert len(found) == len(KEYS)
    for key, item in zip(KEYS, found, strict=True):
        tensors = item["latent.safetensors"]
        assert torch.equal(tensors["latent"], storekit.latent(key))
        assert torch.equal(tensors["class_token"], torch.full((3,), 0.5))
        assert item["latent.json"] == sample(key).document
        assert (item["txt"], item["json"]) == (key, {"n": 1})


def test_the_decoder_leaves_other_members_to_others():
    data = save({"latent": torch.ones(2)})
    for key in (".latent.safetensors", "latent.safetensors", ".safetensors", ".SafeTensors"):
        assert torch.equal(safetensors_decoder(key, data)["latent"], torch.ones(2))
    for key in (".json", ".safetensors.json", ".mysafetensors", ""):
        assert safetensors_decoder(key, data) is None
    with pytest.raises(ValueError, match="are not a safetensors file"):
        load_latents(b"hello")
    assert latentcli.load_latents is load_latents


def test_latents_can_be_written_to():
    tensors = load_latents(memoryview(save({"latent": torch.ones(2)})))
    tensors["latent"].add_(1)
    assert torch.equal(tensors["latent"], torch.full((2,), 2.0))


@pytest.mark.parametrize("streaming", [True, False])
def test_hugging_face_datasets_reads_it(tar, tmp_path, monkeypatch, streaming):
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "1")
    datasets = pytest.importorskip("datasets", reason="the datasets package is not installed")
    found = datasets.load_dataset(
        "webdataset",
        data_files={"train": str(tar)},
        split="train",
        streaming=streaming,
        cache_dir=str(tmp_path / "cache"),
    )
    rows = list(found)
    assert [key_of_member(f"{row['__key__']}.x")[0] for row in rows] == list(KEYS)
    for key, row in zip(KEYS, rows, strict=True):
        tensors = load_latents(row["latent.safetensors"])
        assert torch.equal(tensors["latent"], storekit.latent(key))
        assert row["latent.json"] == sample(key).document
        assert (row["txt"], row["json"], row["bin"]) == (key, {"n": 1}, BYTES)


def test_webdatasets_writer_agrees(tmp_path):
    """A tar of its own writer and one of ours give the same samples."""
    with webdataset.TarWriter(str(tmp_path / "theirs.tar")) as sink:
        sink.write({"__key__": "0001", "latent.json": json.dumps({"a": 1}).encode(), "txt": b"x"})
    ours = TarSample("0001", {}, {"key": "0001"}, {"a": 1}, (Member("txt", b"x"),))
    atomic_write(tmp_path / "ours.tar", tar_chunks([ours]))
    one, other = (
        next(iter(webdataset.WebDataset(str(tmp_path / name), shardshuffle=False)))
        for name in ("theirs.tar", "ours.tar")
    )
    assert one["__key__"] == other["__key__"] and one["txt"] == other["txt"]
    assert json.load(io.BytesIO(one["latent.json"])) == json.load(io.BytesIO(other["latent.json"]))
