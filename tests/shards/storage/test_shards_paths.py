"""Texts become places, and a remote place answers as a local one does."""

from __future__ import annotations

import errno
import hashlib
import pickle
import threading
import uuid
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from latentcli.core.errors import StoreError, UsageError
from latentcli.core.types import InputRow
from latentcli.shards.storage.atomic_write import atomic_write, remove_temporary
from latentcli.shards.storage.json_files import load_object
from latentcli.shards.storage.paths import RemotePath, is_remote, path_of
from latentcli.shards.storage.remote_path import _nanoseconds
from latentcli.shards.store.input_list import InputList, write_inputs
from latentcli.shards.tensors.file import SafetensorsFile
from latentcli.shards.tensors.write import write_safetensors

pytest.importorskip("fsspec")

REMOTE = ["s3://b/x", "gs://b/x", "hf://datasets/a/b", "memory://x", "https://h/x.tar", "S3://b/x"]
LOCAL = ["x", "/x/y", "C:\\x", "C://x", "c:x", "file:///x", "pipe:cat a | b", "pipe://x", "a://b"]


@pytest.fixture
def folder():
    return path_of(f"memory://{uuid.uuid4().hex}/store")


@pytest.mark.parametrize("text", REMOTE)
def test_urls_are_remote(text):
    assert is_remote(text)
    assert isinstance(path_of(text), RemotePath)


@pytest.mark.parametrize("text", LOCAL)
def test_other_texts_are_not(text):
    assert not is_remote(text)
    assert isinstance(path_of(text), Path)


def test_file_urls_are_paths():
    assert path_of("file:///data/a b.tar") == Path("/data/a b.tar")
    assert path_of("file://localhost/data") == Path("/data")
    assert path_of("a/b/") == Path("a/b")


def test_a_url_without_a_bucket_is_refused():
    for text in ("s3://", "s3:///"):
        with pytest.raises(UsageError, match="names no bucket"):
            path_of(text)


def test_names_of_a_remote_path():
    path = path_of("s3://bucket/a/b.tar.gz")
    assert (path.name, path.stem, path.suffix) == ("b.tar.gz", "b.tar", ".gz")
    assert path.parent == path_of("s3://bucket/a/") and str(path.parent) == "s3://bucket/a"
    assert path.parent.parent.parent == path_of("s3://bucket")
    assert path.with_name("c") == path_of("s3://bucket/a/c")
    assert path_of("s3://bucket").name == ""
    assert path_of("s3://bucket") / "x" / "y" == path_of("s3://bucket/x/y")
    signed = path_of("https://h/a/b.tar?key=1/2")
    assert (signed.name, signed.suffix) == ("b.tar", ".tar")
    assert str(signed.with_name("c.tar")) == "https://h/a/c.tar?key=1/2"


def test_a_place_is_a_value():
    path = path_of("s3://bucket/a")
    assert pickle.loads(pickle.dumps(path)) == path
    assert len({path, path_of("s3://bucket/a/")}) == 1
    with pytest.raises(AttributeError):
        path.url = "x"


def test_files_and_folders(folder):
    assert not folder.exists() and not folder.is_dir() and not folder.is_file()
    assert list(folder.glob("*.json")) == []
    with pytest.raises(FileNotFoundError):
        list(folder.iterdir())
    for name in ("b.json", "a.json", "x.bin", "deep/c.json", "odd [1]*.json"):
        (folder / name).write_bytes(name.encode())
    assert folder.is_dir() and not folder.is_file()
    assert (folder / "a.json").is_file() and not (folder / "a.json").is_dir()
    names = sorted(path.name for path in folder.glob("*.json"))
    assert names == ["a.json", "b.json", "odd [1]*.json"]
    assert sorted(path.name for path in folder.iterdir()) == sorted([*names, "deep", "x.bin"])
    found = {str(path): info.st_size for path, info in folder.find()}
    assert found[f"{folder}/deep/c.json"] == len("deep/c.json") and len(found) == 5
    odd = folder / "odd [1]*.json"
    assert odd.read_bytes() == b"odd [1]*.json"
    odd.unlink()
    assert not odd.exists() and (folder / "a.json").exists()
    with pytest.raises(FileNotFoundError):
        odd.unlink()
    odd.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)


def test_ranges(folder):
    path = folder / "x"
    path.write_bytes(bytes(range(100)))
    assert path.read_range(10, 13) == bytes([10, 11, 12])
    assert path.read_range(5, 5) == b""
    with pytest.raises(OSError) as raised:
        path.read_range(90, 101)
    assert raised.value.strerror == "it has 100 bytes now, and bytes up to 101 were expected"
    assert path.stat().st_size == 100 and path.stat().st_mtime_ns > 10**18


def test_an_open_file(folder, monkeypatch):
    from latentcli.shards.storage import remote_path

    monkeypatch.setattr(remote_path, "READ_AHEAD", 7)
    data = b"".join(f"line {i}\n".encode() for i in range(1000))
    (folder / "x").write_bytes(data)
    with (folder / "x").open("rb") as file:
        assert list(file) == data.splitlines(keepends=True)
        file.seek(-4, 2)
        assert file.read() == data[-4:] and file.read(1) == b""
        file.seek(50)
        buffer = bytearray(333)
        assert file.readinto(buffer) == 333 and buffer == data[50:383]
        assert file.tell() == 383
    with pytest.raises(FileNotFoundError):
        (folder / "y").open()
    with pytest.raises(ValueError):
        (folder / "x").open("wb")


def test_a_file_is_written_as_a_whole(folder):
    data = bytes(range(256)) * 100
    path = folder / "shards" / "000000.bin"
    digest = atomic_write(path, (data[i : i + 999] for i in range(0, len(data), 999)))
    assert (digest.bytes, digest.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert path.read_bytes() == data
    assert [p.name for p in path.parent.iterdir()] == ["000000.bin"]
    assert remove_temporary(folder) == []
    atomic_write(path, [])
    assert path.read_bytes() == b"" and path.stat().st_size == 0


def test_an_interrupted_write_leaves_what_was_there(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    path = folder / "x"
    path.write_bytes(b"old")

    def chunks():
        yield b"new"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        atomic_write(path, chunks())
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == []


def test_documents(folder):
    with pytest.raises(StoreError, match=r"a\.json cannot be read: it is not there\."):
        load_object(folder / "a.json")
    atomic_write(folder / "a.json", [b'{"x": 1}'])
    assert load_object(folder / "a.json") == {"x": 1}


def test_an_input_list(folder):
    rows = [InputRow(f"k{i}", f"s3://b/{i}", i // 4, i, i) for i in range(30)]
    path = folder / "inputs.jsonl"
    write_inputs(path, rows)
    inputs = InputList.open(path)
    path.unlink()
    # A copy is here already, and other processes would fetch from the storage.
    assert list(inputs) == rows
    elsewhere = pickle.loads(pickle.dumps(inputs))
    with pytest.raises(StoreError, match="is not there"):
        elsewhere.rows(2)
    write_inputs(path, rows)
    assert elsewhere.rows(2) == rows[8:12]
    with pytest.raises(StoreError, match="cannot be read: it is not there"):
        InputList.open(folder / "none")


def test_a_shard(folder, tmp_path):
    tensors = {
        "a/latent": torch.randn(4, 5, 6),
        "b/latent": torch.arange(7).to(torch.bfloat16),
        "c/empty": torch.empty(0, 3),
        "d/big": torch.randn(300, 100),
    }
    names = {f"x{i}/latent": torch.tensor([i]) for i in range(3000)}
    for some in (tensors, names):
        write_safetensors(tmp_path / "x", some, {"format": "latentcli"})
        digest = write_safetensors(folder / "x", some, {"format": "latentcli"})
        assert digest.sha256 == hashlib.sha256((tmp_path / "x").read_bytes()).hexdigest()
        with SafetensorsFile(folder / "x") as file:
            assert file.metadata == {"format": "latentcli"}
            assert set(file.names) == set(some)
            for name in list(some)[:5]:
                assert torch.equal(file.tensor(name), some[name])
                assert torch.equal(file.rows(name, 1, 3), some[name][1:3])
            copy = pickle.loads(pickle.dumps(file))
        assert torch.equal(copy.tensor(name), some[name])
        with pytest.raises(ValueError, match="was closed"):
            file.tensor(name)


def test_damaged_shards(folder):
    path = folder / "x"
    with pytest.raises(StoreError, match="cannot be read: it is not there"):
        SafetensorsFile(path)
    for data, reason in (
        (b"", "is damaged: it is empty"),
        (b"abc", "is damaged: .*truncated"),
        (b"\xff" * 20, "or its beginning is damaged: it begins with the bytes ff"),
    ):
        path.write_bytes(data)
        with pytest.raises(StoreError, match=reason):
            SafetensorsFile(path)


def test_missing_packages_and_unknown_storage():
    with pytest.raises(UsageError, match="s4:// is not a known kind of storage"):
        path_of("s4://a/b").exists()
    try:
        import gcsfs  # noqa: F401
    except ImportError:
        with pytest.raises(UsageError, match=r"gs:// needs gcsfs: pip install 'latentcli\[gcs\]'"):
            path_of("gs://a/b").exists()


@pytest.fixture
def web(tmp_path):
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_web_server(web, tmp_path):
    pytest.importorskip("aiohttp")
    (tmp_path / "a.bin").write_bytes(bytes(1000))
    path = path_of(f"{web}/a.bin?signed=1")
    assert path.is_file() and path.stat().st_size == 1000
    assert path.read_bytes() == bytes(1000)
    with path.open() as file:
        assert file.read() == bytes(1000)
    with pytest.raises(FileNotFoundError):
        path_of(f"{web}/b.bin").read_bytes()
    # This server knows no ranges; what it sends instead must not be taken for one.
    with pytest.raises(OSError) as raised:
        path.read_range(10, 20)
    assert raised.value.errno == errno.ENOTSUP
    assert raised.value.strerror == "the server does not send parts of files"


def test_times():
    assert _nanoseconds("1970-01-02T00:00:00.000001Z") == 86400 * 10**9 + 1000
    assert _nanoseconds(12) == 12 * 10**9
    assert _nanoseconds(None) == _nanoseconds("") == _nanoseconds("today") == -1
