from __future__ import annotations

import gzip
import io
import lzma
import os
import pickle
import socket
import tarfile

import fsspec
import pytest
import storekit
import torch
from storekit import manifest, run_job

from latentcli.core.errors import SampleError, StoreError
from latentcli.shards.layout import record_path, shard_path
from latentcli.shards.sources.read_bytes import read_bytes
from latentcli.shards.store.input_list import InputList
from latentcli.shards.store.reader import StoreReader
from latentcli.shards.tensors.write import write_safetensors


def test_bytes(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"12345")
    assert read_bytes(str(path)) == b"12345"
    assert read_bytes(str(path), 5) == b"12345"
    with pytest.raises(SampleError, match="has 5 bytes, allowed are at most 4"):
        read_bytes(str(path), 4)
    path.write_bytes(b"")
    assert read_bytes(str(path)) == b""


def test_any_file_name(tmp_path):
    path = tmp_path / os.fsdecode(b"\xff.jpg")
    path.write_bytes(b"x")
    assert read_bytes(str(path)) == b"x"


def test_what_cannot_be_read_says_why(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        here = os.open(tmp_path, os.O_RDONLY)
        server.bind(f"/proc/self/fd/{here}/socket.jpg")
        os.close(here)
    reasons = {
        "gone.jpg": "the file is not there",
        ".": "it is a folder",
        "pipe.jpg": "a device or a pipe",
        "socket.jpg": "No such device",
        "loop.jpg": "Too many levels",
        "nul\0.jpg": "null byte",
    }
    for name, reason in reasons.items():
        with pytest.raises(SampleError, match=reason) as caught:
            read_bytes(f"{tmp_path}/{name}")
        assert caught.value.stage == "read"


def write_tar(path, *names):
    with tarfile.open(path, "w") as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(name)
            tar.addfile(info, io.BytesIO(name.encode()))
    return path


def test_bytes_of_a_member_of_a_tar(tmp_path):
    tar = write_tar(tmp_path / "a::b.tar", "x/1.jpg", "x/2::3.jpg", "x/4.jpg")
    for name in ("x/1.jpg", "x/2::3.jpg"):
        assert read_bytes(f"{tar}::{name}") == name.encode()
    assert read_bytes(f"{tar}::x/1.jpg", 7) == b"x/1.jpg"
    reasons = {
        f"{tar}::x/9.jpg": "the tar has no member x/9.jpg",
        f"{tmp_path}/gone.tar::x/1.jpg": "the file is not there",
        f"{tmp_path}/gone::x/1.jpg": "the file is not there",
        f"{tmp_path}::x/1.jpg": "the file is not there",
    }
    for source, reason in reasons.items():
        with pytest.raises(SampleError, match=reason) as caught:
            read_bytes(source)
        assert caught.value.stage == "read"
    with pytest.raises(SampleError, match=r"x/1.jpg has 7 bytes, allowed are 6"):
        read_bytes(f"{tar}::x/1.jpg", 6)


def test_bytes_of_a_member_of_a_compressed_tar(tmp_path):
    data = write_tar(tmp_path / "a.tar", "1.jpg", "2.jpg").read_bytes()
    url = f"memory://{tmp_path.name}"
    for name, pack in (("p.tar.gz", gzip.compress), ("p.txz", lzma.compress)):
        (tmp_path / name).write_bytes(pack(data))
        with fsspec.open(f"{url}/{name}", "wb") as file:
            file.write(pack(data))
        for folder in (tmp_path, url):
            assert read_bytes(f"{folder}/{name}::2.jpg") == b"2.jpg"
    (tmp_path / "cut.tgz").write_bytes(gzip.compress(data)[:40])
    with pytest.raises(SampleError, match="gzip data end too early"):
        read_bytes(f"{tmp_path}/cut.tgz::2.jpg")


def test_a_file_is_preferred_to_a_member(tmp_path):
    tar = write_tar(tmp_path / "a.tar", "1.jpg")
    bare = write_tar(tmp_path / "bare", "1.jpg")
    assert read_bytes(f"{bare}::1.jpg") == b"1.jpg"
    (tmp_path / "a.tar::1.jpg").write_bytes(b"the file")
    assert read_bytes(f"{tar}::1.jpg") == b"the file"


def test_a_cut_tar_gives_no_half_member(tmp_path):
    tar = write_tar(tmp_path / "a.tar", "1.jpg", "n" * 90)
    tar.write_bytes(tar.read_bytes()[: 3 * 512 + 50])
    assert read_bytes(f"{tar}::1.jpg") == b"1.jpg"
    with pytest.raises(SampleError, match="cut short"):
        read_bytes(f"{tar}::{'n' * 90}")


def test_bytes_of_a_url(tmp_path):
    url = f"memory://{tmp_path.name}"
    with fsspec.open(f"{url}/a.jpg", "wb") as file:
        file.write(b"12345")
    with fsspec.open(f"{url}/a.tar", "wb") as file:
        file.write(write_tar(tmp_path / "a.tar", "1.jpg", "2.jpg").read_bytes())
    assert read_bytes(f"{url}/a.jpg") == read_bytes(f"{url}/a.jpg", 5) == b"12345"
    assert read_bytes(f"{url}/a.tar::2.jpg") == b"2.jpg"
    with pytest.raises(SampleError, match="has 5 bytes, allowed are at most 4"):
        read_bytes(f"{url}/a.jpg", 4)
    with pytest.raises(SampleError, match="the file is not there"):
        read_bytes(f"{url}/b.jpg")
    assert read_bytes(f"file://{tmp_path}/a.tar::2.jpg") == b"2.jpg"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_permission_denied(tmp_path):
    path = tmp_path / "secret.jpg"
    path.touch(mode=0)
    with pytest.raises(SampleError, match="Permission denied"):
        read_bytes(str(path))


@pytest.fixture
def store(tmp_path):
    run_job(tmp_path / "store", count=50)
    return tmp_path / "store"


def encoded(count: int = 50) -> list[str]:
    return [f"img/{i:04d}" for i in range(count) if i % 10 != 3]


def test_store_by_key(store):
    reader = StoreReader(store)
    assert list(reader) == list(reader.keys()) == encoded()
    assert len(reader) == 45
    assert [row.key for row in reader.rows()] == [f"img/{i:04d}" for i in range(50)]
    for key in reversed(encoded()):
        ((name, value),) = reader.tensors(key).items()
        assert name == f"{key}/latent"
        assert torch.equal(value, storekit.latent(key))
        assert reader.row(key).original_size == (24, 16)
    assert reader.metadata["latent_space"] == "toy#whitened"
    assert reader.manifest.status == "complete"


def test_unknown_and_failed_keys(store):
    reader = StoreReader(store)
    assert "img/0001" in reader and "img/0003" not in reader and "x" not in reader
    assert reader.row("img/0003").status == "failed"
    with pytest.raises(StoreError, match=r"no latent in .*decode_image: truncated"):
        reader.tensors("img/0003")
    with pytest.raises(StoreError, match="has no key 'img'"):
        reader.tensors("img")
    with pytest.raises(StoreError, match="is not a latent store"):
        StoreReader(store / "shards")


def test_a_copy_for_another_process(store):
    reader = StoreReader(store)
    first = reader.tensors("img/0001")
    copy = pickle.loads(pickle.dumps(reader))
    assert torch.equal(copy.tensors("img/0001")["img/0001/latent"], first["img/0001/latent"])
    assert len(pickle.dumps(reader)) < 5000


def test_a_running_store_shows_what_is_committed(tmp_path, store):
    record_path(store, 1).unlink()
    description = storekit.replace_status(store)
    reader = StoreReader(store)
    assert description.status == reader.manifest.status == "running"
    assert list(reader) == [key for key in encoded() if not "img/0004" <= key <= "img/0007"]
    assert len(reader) == 41
    assert "img/0005" not in reader


def test_one_shard_is_a_store(store, tmp_path):
    path = shard_path(store, 1).rename(tmp_path / "some.safetensors")
    reader = StoreReader(path)
    keys = [f"img/{i:04d}" for i in range(4, 8)]
    assert (list(reader), len(reader), reader.units) == (keys, 4, [1])
    assert reader.manifest is None and reader.metadata["unit"] == "1"
    assert reader.row("img/0005").latent_shape == (4, 2, 3)
    assert torch.equal(
        pickle.loads(pickle.dumps(reader)).tensors("img/0005")["img/0005/latent"],
        storekit.latent("img/0005"),
    )
    write_safetensors(tmp_path / "model.safetensors", {"a": torch.ones(1)}, {})
    with pytest.raises(StoreError, match="is not a shard of a latent store"):
        StoreReader(tmp_path / "model.safetensors")
    (tmp_path / "text").write_text("hello world")
    with pytest.raises(StoreError, match=r"text is not a safetensors file, .* it looks like text"):
        StoreReader(tmp_path / "text")


def test_keys_within_keys(tmp_path):
    (tmp_path / "shards").mkdir()
    tensors = {f"{key}/latent": storekit.latent(key) for key in ("a", "a/latent", "a/b")}
    path = tmp_path / "shard.safetensors"
    write_safetensors(path, tensors, {"format": "latentcli", "unit": "0"})
    reader = StoreReader(path)
    assert list(reader) == ["a", "a/b", "a/latent"]
    for key in reader:
        assert torch.equal(reader.tensors(key)[f"{key}/latent"], storekit.latent(key))


def test_an_empty_store(tmp_path):
    from latentcli.shards.store.writer import open_for_writing

    open_for_writing(tmp_path, manifest())
    reader = StoreReader(tmp_path)
    assert (list(reader), len(reader), reader.metadata, "a" in reader) == ([], 0, {}, False)


def test_reader_and_list_agree(store):
    inputs = InputList.open(store / "inputs.jsonl")
    assert [row.key for row in inputs] == [row.key for row in StoreReader(store).rows()]
