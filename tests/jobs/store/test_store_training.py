"""The loop of the page on training, run as it stands there, and what readers give of captions."""

from __future__ import annotations

import json
import pickle
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import fsspec
import jobkit
import pytest
import tarjobkit
from harness.s3 import needs_s3, s3_server
from harness.stores import Bucket
from torch.utils.data import DataLoader

from latentcli import LatentDataset, open_store
from latentcli.core.errors import StoreError
from latentcli.shards.storage.paths import path_of

PAGE = (Path(__file__).parents[3] / "docs" / "guides" / "training.md").read_text(encoding="utf-8")
COUNT = 6
CAPTIONS = {f"{i:04d}": f"caption {i}" for i in range(COUNT)}
FIELDS = {f"{i:04d}": {"caption": f"caption {i}", "number": i} for i in range(COUNT)}


def encode_tar(source: Path, store: Path, model: str) -> Path:
    jobkit.encode(source, store, model, shard_format="webdataset", samples_per_shard=None)
    return store


@pytest.fixture(scope="module")
def tar_store(tmp_path_factory, model):
    folder = tmp_path_factory.mktemp("tars")
    source = tarjobkit.make_tar(folder / "a.tar", tarjobkit.members(COUNT, size=(64, 64)))
    return encode_tar(source, folder / "store", model)


@pytest.fixture(scope="module")
def folder_store(tmp_path_factory, model):
    folder = tmp_path_factory.mktemp("folder")
    source = tarjobkit.unpacked(tarjobkit.members(COUNT, size=(64, 64)), folder / "pictures")
    jobkit.encode(source, folder / "store", model)
    return folder / "store"


LOOP, *BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def run_the_loop(store: object, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """What the page's code leaves behind when it is run as a program with one word."""
    monkeypatch.setattr(sys, "argv", ["train.py", str(store)])
    names: dict[str, object] = {"__name__": "__main__"}
    exec(compile(LOOP, "training.md", "exec"), names)
    return names


def check_the_loop(store: object, monkeypatch, capsys) -> None:
    names = run_the_loop(store, monkeypatch)
    assert re.fullmatch(r"(epoch \d: loss \d+\.\d{3}\n){2}", capsys.readouterr().out)
    items = [names["dataset"][i] for i in range(COUNT)]
    found = {item["key"].rpartition("/")[2]: item["caption"] for item in items}
    assert found == CAPTIONS
    assert len(names["batch"]["caption"]) in (2, 4)


def test_the_loop_is_short():
    assert len(LOOP.strip().splitlines()) <= 40


@pytest.mark.parametrize("block", BLOCKS)
def test_the_other_code_runs(block, folder_store):
    for name in ("torchdata", "accelerate"):
        if f"from {name}" in block:
            pytest.importorskip(name)
            pytest.importorskip("psutil")
    batches: list[dict[str, Any]] = []
    names = {"store": str(folder_store), "train": batches.append}
    exec(compile(block, "training.md", "exec"), names)
    if "train(" in block:
        # Each of these reads one epoch, some in two runs.
        keys = sorted(key for batch in batches for key in batch["key"])
        assert keys == sorted(open_store(folder_store))


@pytest.mark.parametrize("kind", ["folder_store", "tar_store"])
def test_the_loop_reads_stores(kind, request, monkeypatch, capsys):
    check_the_loop(request.getfixturevalue(kind), monkeypatch, capsys)


@needs_s3
def test_the_loop_reads_remote_stores(folder_store, tar_store, monkeypatch, capsys):
    with s3_server() as server:
        bucket = server.bucket()
        for name, store in (("folder", folder_store), ("tar", tar_store)):
            Bucket(f"{bucket}/{name}").put(store)
            check_the_loop(f"{bucket}/{name}", monkeypatch, capsys)


@pytest.mark.parametrize("kind", ["folder_store", "tar_store"])
def test_fields(kind, request):
    path = request.getfixturevalue(kind)
    store = open_store(path)
    keys = list(store)
    assert [store.fields(key) for key in keys] == list(FIELDS.values())
    with pytest.raises(StoreError, match="no key 'unknown'"):
        store.fields("unknown")
    dataset = LatentDataset(path, fields=True)
    assert dataset[1]["fields"] == FIELDS["0001"] and dataset[1]["caption"] == "caption 1"
    bare = LatentDataset(path, captions=False)[1]
    assert "caption" not in bare and "fields" not in bare


@pytest.mark.parametrize("kind", ["folder_store", "tar_store"])
def test_fields_of_one_shard(kind, request):
    (first, *_) = sorted((request.getfixturevalue(kind) / "shards").glob("0*[rs]"))
    store = open_store(first)
    assert first.suffix in (".safetensors", ".tar")
    assert [store.fields(key) for key in store] == list(FIELDS.values())[: len(store)]


def test_a_shard_alone_has_no_fields(folder_store, tmp_path):
    shutil.copy(folder_store / "shards" / "000000.safetensors", tmp_path)
    store = open_store(tmp_path / "000000.safetensors")
    assert [store.fields(key) for key in store] == [{}] * 4


def test_stores_without_captions_make_batches(mixed_store, tmp_path, model):
    assert LatentDataset(mixed_store)[0]["caption"] == ""
    store = open_store(mixed_store)
    assert store.fields(next(iter(store))) == {} == store.fields("000/000010")
    source = tarjobkit.unpacked(tarjobkit.members(2, size=(64, 64)), tmp_path / "pictures")
    (source / "0000.txt").unlink()
    jobkit.encode(source, tmp_path / "store", model)
    (batch,) = DataLoader(LatentDataset(tmp_path / "store"), batch_size=2)
    assert batch["caption"] == ["", "caption 1"] and batch["latent"].shape[0] == 2


def test_a_copy_for_a_worker_reads_captions(folder_store):
    dataset = LatentDataset(folder_store)
    assert dataset[0]["caption"] == "caption 0"
    copy = pickle.loads(pickle.dumps(dataset))
    assert [copy[i]["caption"] for i in range(COUNT)] == list(CAPTIONS.values())


def test_only_texts_are_read_of_a_tar(tmp_path, model):
    files = tarjobkit.members(1, size=(64, 64))
    files.append(("0000.depth.npy", bytes(100_000)))
    source = tarjobkit.make_tar(tmp_path / "a.tar", files)
    encode_tar(source, tmp_path / "store", model)
    url = f"memory://{tmp_path.name}"
    for path in (tmp_path / "store").rglob("*"):
        if path.is_file():
            with fsspec.open(f"{url}/{path.relative_to(tmp_path / 'store')}", "wb") as file:
                file.write(path.read_bytes())
    store = open_store(url)
    (key,) = store
    texts = store.others(key, lambda field: field == "txt")
    assert [(member.field, member.data) for member in texts] == [("txt", b"caption 0\n")]
    assert {member.field for member in store.others(key)} == {"txt", "json", "depth.npy"}
    assert store.fields(key) == FIELDS["0000"]


def test_damaged_fields_are_told(folder_store, tmp_path):
    shutil.copytree(folder_store, tmp_path / "store")
    path = tmp_path / "store" / "shards" / "000000.fields.jsonl"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(StoreError, match=r"fields\.jsonl is damaged"):
        LatentDataset(tmp_path / "store")[0]


def test_documents_of_tars_follow_the_policies(tmp_path, model):
    files = [
        ("0.png", tarjobkit.picture(0)),
        ("0.txt", b"\xe4"),
        ("0.json", json.dumps({"text": "from the document"}).encode()),
        ("1.png", tarjobkit.picture(1)),
        ("1.json", b"{"),
    ]
    source = tarjobkit.make_tar(tmp_path / "a.tar", files)
    encode_tar(source, tmp_path / "store", model)
    store = open_store(path_of(str(tmp_path / "store")))
    found = [store.fields(key) for key in store]
    assert found == [{"caption": "from the document", "text": "from the document"}, {}]
