from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from storekit import tree

from latentcli.core.errors import StoreError
from latentcli.shards.storage.atomic_write import (
    atomic_write,
    duplicate,
    remove_temporary,
    temporary_name,
    write_error,
)
from latentcli.shards.storage.paths import path_of
from latentcli.shards.tensors.dtypes import dtypes
from latentcli.shards.tensors.file import SafetensorsFile
from latentcli.shards.tensors.write import write_safetensors

shapes = st.lists(st.integers(0, 4), max_size=4)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
contents = st.dictionaries(
    texts.filter(lambda name: name != "__metadata__"),
    st.tuples(st.sampled_from(sorted(dtypes())), shapes),
    max_size=8,
)


def make(code: str, shape: list[int]) -> torch.Tensor:
    dtype = dtypes()[code]
    count = torch.Size(shape).numel() * dtype.itemsize
    values = torch.randint(0, 2 if code == "BOOL" else 256, (count,), dtype=torch.uint8)
    return values.view(dtype).view(shape)


def raw(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


@settings(max_examples=60)
@given(contents, st.dictionaries(texts, texts, max_size=4), st.randoms())
def test_the_library_reads_what_we_write(tmp_path_factory, content, metadata, chance):
    folder = tmp_path_factory.mktemp("write")
    tensors = {name: make(code, shape) for name, (code, shape) in content.items()}
    digest = write_safetensors(folder / "a", tensors, metadata)
    data = (folder / "a").read_bytes()
    assert (digest.bytes, digest.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    loaded = load_file(folder / "a")
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype and loaded[name].shape == tensor.shape
        assert raw(loaded[name]) == raw(tensor)
    with safe_open(folder / "a", "pt") as file:
        assert (file.metadata() or {}) == metadata
    with SafetensorsFile(folder / "a") as ours:
        assert ours.metadata == metadata
        assert {name: raw(ours.tensor(name)) for name in ours.names} == {
            name: raw(tensor) for name, tensor in tensors.items()
        }
    names, words = list(tensors), list(metadata.items())
    chance.shuffle(names)
    chance.shuffle(words)
    write_safetensors(folder / "b", {name: tensors[name] for name in names}, dict(words))
    assert (folder / "b").read_bytes() == data


@settings(max_examples=30)
@given(contents)
def test_we_read_what_the_library_writes(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("read") / "file"
    tensors = {name: make(code, shape) for name, (code, shape) in content.items()}
    save_file(tensors, path, {"a": "b"})
    with SafetensorsFile(path) as file:
        assert file.metadata == {"a": "b"}
        assert {name: raw(file.tensor(name)) for name in file.names} == {
            name: raw(tensor) for name, tensor in tensors.items()
        }


def test_the_format_to_the_byte(tmp_path):
    tensors = {
        "b/latent": torch.tensor([[1.0, -2.0]], dtype=torch.bfloat16),
        "a/latent": torch.tensor([[1.5, 0.0]], dtype=torch.bfloat16),
    }
    write_safetensors(tmp_path / "shard", tensors, {"unit": "0", "format": "latentcli"})
    header = (
        b'{"__metadata__":{"format":"latentcli","unit":"0"},'
        b'"a/latent":{"dtype":"BF16","shape":[1,2],"data_offsets":[0,4]},'
        b'"b/latent":{"dtype":"BF16","shape":[1,2],"data_offsets":[4,8]}}'
    )
    header += b" " * (-len(header) % 8)
    body = bytes.fromhex("c03f0000803f00c0")
    expected = len(header).to_bytes(8, "little") + header + body
    assert (tmp_path / "shard").read_bytes() == expected


def test_size_is_that_of_the_library_file(tmp_path):
    tensors = {f"layer.{i}.weight": torch.ones(i, 3) for i in range(5)}
    write_safetensors(tmp_path / "ours", tensors, {})
    save_file(tensors, tmp_path / "theirs")
    assert (tmp_path / "ours").stat().st_size == (tmp_path / "theirs").stat().st_size


def test_every_tensor_is_aligned(tmp_path):
    tensors = {"a": torch.ones(3, dtype=torch.uint8), "b": torch.ones(2, dtype=torch.float64)}
    write_safetensors(tmp_path / "file", tensors, {})
    entry = SafetensorsFile(tmp_path / "file").entries["b"]
    assert entry.begin % 8 == 0
    length = int.from_bytes((tmp_path / "file").read_bytes()[:8], "little")
    assert (8 + length) % 8 == 0


def test_views_are_written_as_they_look(tmp_path):
    grid = torch.arange(12).view(3, 4)
    write_safetensors(tmp_path / "file", {"t": grid.T, "row": grid[1], "one": grid[0, 3]}, {})
    loaded = load_file(tmp_path / "file")
    assert torch.equal(loaded["t"], grid.T)
    assert torch.equal(loaded["row"], grid[1]) and torch.equal(loaded["one"], grid[0, 3])


def test_what_the_format_lacks_is_refused(tmp_path):
    with pytest.raises(ValueError, match="complex"):
        write_safetensors(tmp_path / "file", {"a": torch.ones(1, dtype=torch.complex128)}, {})
    with pytest.raises(ValueError, match="__metadata__"):
        write_safetensors(tmp_path / "file", {"__metadata__": torch.ones(1)}, {})
    with pytest.raises(ValueError, match="strings"):
        write_safetensors(tmp_path / "file", {}, {"unit": 0})
    assert list(tmp_path.iterdir()) == []


def test_an_error_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def chunks():
        yield b"new" * 100_000
        assert len(list(tmp_path.glob(".tmp-*"))) == 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        atomic_write(path, chunks())
    assert tree(tmp_path) == {"file": b"old"}
    atomic_write(path, [b"ne", memoryview(b"w")])
    assert tree(tmp_path) == {"file": b"new"}


def test_refused_writes_say_why(tmp_path):
    with pytest.raises(StoreError, match="No such file or directory"):
        atomic_write(tmp_path / "gone" / "file", [b"x"])
    (tmp_path / "file").mkdir()
    with pytest.raises(StoreError, match=r"file cannot be written: Is a directory"):
        atomic_write(tmp_path / "file", [b"x"])
    assert list(tmp_path.glob(".tmp-*")) == []
    with pytest.raises(OSError) as full, Path("/dev/full").open("wb", buffering=0) as device:
        device.write(b"x")
    assert "the disk is full" in str(write_error(Path("x"), full.value))
    quota = str(write_error(Path("x"), OSError(errno.EDQUOT, "")))
    assert "quota" in quota and "make room" in quota
    assert "read-only" in str(write_error(Path("x"), OSError(errno.EROFS, "")))


def no_links(*_):
    raise PermissionError(1, "Operation not permitted")


@pytest.mark.parametrize("links", [True, False])
def test_a_second_name(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"new")
    other.write_bytes(b"old")
    open_before = other.open("rb")
    for _ in range(2):
        duplicate(one, "other")
        assert tree(tmp_path) == {"one": b"new", "other": b"new"}
    assert open_before.read() == b"old"
    assert one.samefile(other) == links
    one.unlink()
    assert other.read_bytes() == b"new"
    duplicate(other, "one")
    assert tree(tmp_path) == {"one": b"new", "other": b"new"}


def test_a_second_name_that_is_refused_leaves_what_was_there(tmp_path, monkeypatch):
    for name in ("one", "other"):
        (tmp_path / name).write_bytes(name.encode())
    before = tree(tmp_path)
    with pytest.raises(StoreError, match="folder cannot be written: Is a directory"):
        (tmp_path / "folder").mkdir()
        duplicate(tmp_path / "one", "folder")
    (tmp_path / "folder").rmdir()
    with pytest.raises(StoreError, match="other cannot be written: No such file"):
        duplicate(tmp_path / "none", "other")
    monkeypatch.setattr(os, "link", no_links)

    def half(source, target):
        Path(target).write_bytes(b"o")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", half)
    with pytest.raises(StoreError, match="the disk is full"):
        duplicate(tmp_path / "one", "other")
    assert tree(tmp_path) == before


def test_a_second_name_in_remote_storage():
    folder = path_of(f"memory://{uuid.uuid4().hex}/a b")
    atomic_write(folder / "one", [b"new"])
    atomic_write(folder / "other", [b"old"])
    duplicate(folder / "one", "other")
    duplicate(folder / "one", "third")
    (folder / "one").unlink()
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert found == {"other": b"new", "third": b"new"}
    with pytest.raises(StoreError, match="third cannot be written"):
        duplicate(folder / "one", "third")
    assert (folder / "third").read_bytes() == b"new"


def test_the_longest_name_that_a_file_system_takes(tmp_path):
    """The name of the temporary file is short, so that it is no limit."""
    for name in ("k" * 250 + ".png", "\u00e4" * 127):
        assert atomic_write(tmp_path / name, [b"x"]).bytes == 1
        assert (tmp_path / name).read_bytes() == b"x"
    with pytest.raises(StoreError, match="longer than the file system allows"):
        atomic_write(tmp_path / ("k" * 256), [b"x"])
    assert not list(tmp_path.glob(".tmp-*"))


def test_temporary_names_are_of_one_process_and_one_file():
    code = (
        "import os, sys; os.getpid = lambda: 1; import socket; socket.gethostname = lambda: 'same'"
        "\nfrom latentcli.shards.storage.atomic_write import temporary_name as name"
        "\nprint(name('a'), name('a'), name('b'), name('\\udcff' * 300))"
    )
    told = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    first, again, other, odd = told[0].stdout.split()
    assert first == again != other and max(map(len, (first, odd))) < 100
    # Containers may have equal hosts and process numbers.
    assert first not in told[1].stdout
    assert len(temporary_name("n" * 1000)) < 100 and temporary_name("n").startswith(".tmp-")


def test_remove_temporary_takes_nothing_else(tmp_path):
    (tmp_path / "shards").mkdir()
    for name in (".tmp-1-manifest.json", "shards/.tmp-22-000000.json", "shards/000000.json"):
        (tmp_path / name).touch()
    (tmp_path / ".tmp-folder").mkdir()
    assert len(remove_temporary(tmp_path)) == 2
    assert tree(tmp_path) == {".tmp-folder": None, "shards": None, "shards/000000.json": b""}


def flip(data: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(len(data))
    return data[:place] + bytes([data[place] ^ (1 << chance.randrange(8))]) + data[place + 1 :]


def test_damaged_headers_never_crash(tmp_path):
    path, chance = tmp_path / "file", random.Random(1)
    write_safetensors(path, {"a/latent": torch.ones(2, 3), "b/latent": torch.ones(4)}, {"x": "y"})
    good = path.read_bytes()
    header = 8 + int.from_bytes(good[:8], "little")
    for _ in range(400):
        path.write_bytes(flip(good[:header], chance) + good[header:])
        try:
            with SafetensorsFile(path) as file:
                for name in file.names:
                    file.tensor(name).sum()
        except StoreError as error:
            assert str(path) in str(error)
    for length in range(len(good)):
        path.write_bytes(good[:length])
        with pytest.raises(StoreError, match="file is damaged"):
            SafetensorsFile(path)


def file_of(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(begin: int, end: int, dtype: str = "U8", shape: tuple[int, ...] = (4,)) -> object:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"\xff" * 8, "truncated or not a safetensors"),
        (b"PK\3\4" + b"x" * 40, "it looks like a ZIP archive"),
        (file_of(b"{nonsense"), "not JSON"),
        (file_of(b"[" * 5000), "not JSON"),
        (file_of([1]), "not a JSON object"),
        (file_of(b'{"a": {}, "a": {}}'), "twice"),
        (file_of({"__metadata__": {"a": 1}}), "strings"),
        (file_of({"a": 5}), "no dtype, shape and offsets"),
        (file_of({"a": entry(0, 4, "Q9")}, b"1234"), "dtype 'Q9', known are"),
        (file_of({"a": entry(0, 4, "F32")}, b"1234"), "cannot lie in 4 bytes"),
        (file_of({"a": entry(4, 0)}, b"1234"), "cannot lie in -4 bytes"),
        (file_of({"a": entry(0, 4, shape=(-4,))}, b"1234"), "shape"),
        (file_of({"a": entry(0, 4, shape=(True, 4))}, b"1234"), "shape"),
        (file_of({"a": entry(0, 4), "b": entry(3, 7)}, b"1234567"), "overlaps"),
        (file_of({"a": entry(0, 4), "b": entry(5, 9)}, b"123456789"), "hole"),
        (file_of({"a": entry(0, 4)}, b"123"), "is truncated: the header describes 4 bytes"),
        (file_of({"a": entry(0, 4)}, b"12345"), "goes on after"),
    ],
)
def test_damage_is_named(tmp_path, content, words):
    path = tmp_path / "000000.safetensors"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"000000\.safetensors is .*damaged") as caught:
        SafetensorsFile(path)
    assert words in str(caught.value)


def test_tensors_outlive_the_file_and_are_private(tmp_path):
    import pickle

    path = tmp_path / "file"
    write_safetensors(path, {"a": torch.arange(10_000)}, {})
    before = path.read_bytes()
    file = SafetensorsFile(path)
    values = file.tensor("a")
    copy = pickle.loads(pickle.dumps(file))
    file.close()
    values += 1
    assert values.sum() == sum(range(10_000)) + 10_000
    assert copy.tensor("a").sum() == sum(range(10_000))
    assert path.read_bytes() == before
    with pytest.raises(StoreError, match="no tensor 'b'"):
        copy.tensor("b")
    with pytest.raises(StoreError, match="cannot be read: No such file"):
        SafetensorsFile(tmp_path / "none")


def test_misaligned_tensors_are_read(tmp_path):
    path = tmp_path / "file"
    header = {"a": entry(0, 1, "U8", (1,)), "b": entry(1, 5, "F32", (1,))}
    path.write_bytes(file_of(header, b"\7" + bytes.fromhex("0000c03f")))
    assert SafetensorsFile(path).tensor("b").item() == 1.5
