"""Large files are read in order, in bounded memory, and damage does not pass for an end."""

from __future__ import annotations

import gzip
import os
import random
import threading
import time
import tracemalloc
import uuid
import zlib

import pytest

from latentcli.shards.storage import byte_stream
from latentcli.shards.storage.byte_stream import open_stream
from latentcli.shards.storage.paths import RemotePath, path_of

pytest.importorskip("fsspec")

DATA = random.Random(3).randbytes(100_000) + bytes(50_000)


@pytest.fixture(autouse=True)
def small_ranges(monkeypatch):
    monkeypatch.setattr(byte_stream, "RANGE", 9973)
    monkeypatch.setattr(byte_stream, "_INPUT", 997)


@pytest.fixture(params=["local", "remote"])
def folder(request, tmp_path):
    return tmp_path if request.param == "local" else path_of(f"memory://{uuid.uuid4().hex}/x")


def put(path, data):
    path.write_bytes(data)
    return path


def in_pieces(stream, seed=0):
    sizes, parts = random.Random(seed), []
    with stream:
        while part := stream.read(sizes.choice([1, 512, 9973, 30_000])):
            parts.append(part)
        assert stream.read(10) == b"" and stream.read() == b""
    return b"".join(parts)


@pytest.mark.parametrize("start", [0, 1, 9973, 149_999, 150_000])
def test_all_bytes_in_order(folder, start):
    path = put(folder / "a.tar", DATA)
    assert in_pieces(open_stream(path, start=start)) == DATA[start:]
    with open_stream(path, size=len(DATA), start=start) as stream:
        assert stream.read() == DATA[start:]


def test_a_read_is_full_until_the_end(folder):
    with open_stream(put(folder / "a.tar", DATA)) as stream:
        assert len(stream.read(149_000)) == 149_000
        assert len(stream.read(149_000)) == 1000
        assert stream.read(0) == b""


@pytest.mark.parametrize("name", ["a.tar.gz", "a.TGZ"])
@pytest.mark.parametrize("start", [0, 12_345, 150_000, 200_000])
def test_gzip_is_unpacked(folder, name, start):
    members = gzip.compress(DATA[:70_000]) + gzip.compress(b"") + gzip.compress(DATA[70_000:])
    path = put(folder / name, members + bytes(2000))
    assert in_pieces(open_stream(path, start=start)) == DATA[start:]


def test_damaged_gzip(folder):
    packed = gzip.compress(DATA)
    for size in (5, 1000, len(packed) - 1):
        with (
            open_stream(put(folder / "a.tgz", packed[:size])) as stream,
            pytest.raises(OSError) as raised,
        ):
            stream.read()
        assert raised.value.strerror == "its gzip data end too early"
    for data in (b"no gzip at all", packed + b"more", packed[:-6] + b"\1" + packed[-5:]):
        with (
            open_stream(put(folder / "a.tgz", data)) as stream,
            pytest.raises(OSError) as raised,
        ):
            stream.read()
        assert raised.value.strerror.startswith("its gzip data are damaged (")


def test_a_gzip_bomb_is_unpacked_only_as_far_as_it_is_read(folder):
    pack = zlib.compressobj(9, wbits=31)
    bomb = b"".join(pack.compress(bytes(10**6)) for _ in range(100)) + pack.flush()
    path = put(folder / "a.tar.gz", bomb)
    tracemalloc.start()
    try:
        with open_stream(path) as stream:
            for _ in range(100):
                assert stream.read(10_000) == bytes(10_000)
        assert tracemalloc.get_traced_memory()[1] < 2 * 10**6
    finally:
        tracemalloc.stop()


def test_missing_files_and_other_sizes(folder):
    with pytest.raises(FileNotFoundError):
        open_stream(folder / "none")
    path = put(folder / "a.tar", DATA)
    with pytest.raises(OSError) as raised:
        open_stream(path, size=7)
    assert raised.value.strerror == "it has 150000 bytes now and had 7 when it was listed"
    with open_stream(path, size=-1) as stream:
        assert stream.read(3) == DATA[:3]


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.tar")
    with pytest.raises(OSError, match="no regular file"):
        open_stream(tmp_path / "a.tar")


@pytest.mark.parametrize("change", [DATA[:120_000], DATA + b"more", DATA])
def test_a_remote_file_that_changes_meanwhile(change):
    path = put(path_of(f"memory://{uuid.uuid4().hex}/a.tar"), DATA)
    with open_stream(path) as stream:
        stream.read(50_000)
        time.sleep(0.001)
        path.write_bytes(change)
        with pytest.raises(OSError, match=r"changed while|bytes now") as raised:
            stream.read()
        assert raised.value.strerror


def test_one_range_is_read_ahead_and_no_more(monkeypatch):
    path = put(path_of(f"memory://{uuid.uuid4().hex}/a.tar"), DATA)
    asked = []
    read_range = RemotePath.read_range

    def noted(self, begin, end):
        asked.append(begin)
        return read_range(self, begin, end)

    monkeypatch.setattr(RemotePath, "read_range", noted)
    with open_stream(path) as stream:
        stream.read(9973 * 3 - 1)
        deadline = time.monotonic() + 30
        while len(asked) < 4 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)  # a fifth would be asked for by now
        assert asked == [0, 9973, 9973 * 2, 9973 * 3]
    deadline = time.monotonic() + 5
    while any("read-ahead" in thread.name for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
