"""Large files are read in order, in bounded memory, and damage does not pass for an end."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import random
import sys
import threading
import time
import tracemalloc
import uuid
import zlib

import pytest

from latentcli.core.errors import UsageError
from latentcli.shards.storage import byte_stream, decompress
from latentcli.shards.storage.byte_stream import open_stream
from latentcli.shards.storage.paths import RemotePath, path_of

pytest.importorskip("fsspec")

DATA = random.Random(3).randbytes(100_000) + bytes(50_000)


@pytest.fixture(autouse=True)
def small_ranges(monkeypatch):
    monkeypatch.setattr(byte_stream, "RANGE", 9973)
    monkeypatch.setattr(decompress, "_INPUT", 997)


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


def zstd_module():
    return pytest.importorskip(
        "backports.zstd" if sys.version_info < (3, 14) else "compression.zstd"
    )


def zstd(data):
    """As the zstd command packs it."""
    module = zstd_module()
    return module.compress(data, options={module.CompressionParameter.checksum_flag: 1})


PACK = {
    "gz": gzip.compress,
    "tgz": gzip.compress,
    "zst": zstd,
    "tzst": zstd,
    "xz": lzma.compress,
    "txz": lzma.compress,
    "bz2": bz2.compress,
    "tbz2": bz2.compress,
}
NAMES = {"gz": "gzip", "zst": "zstd", "xz": "xz", "bz2": "bzip2"}


@pytest.mark.parametrize(
    "name", ["a.tar.gz", "a.TGZ", "a.tar.zst", "a.tzst", "a.tar.xz", "a.txz", "a.tar.BZ2", "a.tbz2"]
)
@pytest.mark.parametrize("start", [0, 12_345, 150_000, 200_000])
def test_compressed_files_of_several_parts(folder, name, start):
    pack = PACK[name.rpartition(".")[2].lower()]
    parts = pack(DATA[:70_000]) + pack(b"") + pack(DATA[70_000:])
    path = put(folder / name, parts + bytes(2000))
    assert in_pieces(open_stream(path, start=start)) == DATA[start:]


@pytest.mark.parametrize("kind", NAMES)
def test_damaged_and_cut_compressed_files(folder, kind):
    pack, name = PACK[kind], NAMES[kind]
    packed = pack(DATA)

    def reason(data):
        with (
            open_stream(put(folder / f"a.{kind}", data)) as stream,
            pytest.raises(OSError) as raised,
        ):
            stream.read()
        return raised.value.strerror

    for size in (5, 1000, len(packed) - 1):
        assert reason(packed[:size]) == f"its {name} data end too early"
    assert reason(pack(DATA[:70_000]) + packed[:900]) == f"its {name} data end too early"
    middle = len(packed) // 2
    flipped = packed[:middle] + bytes([packed[middle] ^ 0x55]) + packed[middle + 1 :]
    for data in (packed + b"more of it" * 9, flipped):
        assert reason(data).startswith(f"its {name} data are damaged (")
    assert reason(b"<html>404</html>") == f"it is not a {name} file: it looks like an HTML page"


@pytest.mark.parametrize("kind", NAMES)
def test_a_bomb_is_decompressed_only_as_far_as_it_is_read(folder, kind):
    if kind == "gz":
        pack = zlib.compressobj(9, wbits=31)
        bomb = b"".join(pack.compress(bytes(10**6)) for _ in range(100)) + pack.flush()
    else:
        bomb = PACK[kind](bytes(3 * 10**7))
    path = put(folder / f"a.tar.{kind}", bomb)
    tracemalloc.start()
    try:
        with open_stream(path) as stream:
            for _ in range(100):
                assert stream.read(10_000) == bytes(10_000)
        # Of xz, 8 MiB are the dictionary that its streams ask for.
        assert tracemalloc.get_traced_memory()[1] < 12 * 10**6
    finally:
        tracemalloc.stop()


def test_a_window_that_would_take_much_memory_is_refused(tmp_path):
    module = zstd_module()
    options = {module.CompressionParameter.window_log: 28}
    pack = module.ZstdCompressor(options=options)
    data = b"".join((pack.compress(DATA), pack.compress(DATA), pack.flush()))
    with open_stream(put(tmp_path / "a.zst", data)) as stream, pytest.raises(OSError) as raised:
        stream.read()
    assert "too much memory" in raised.value.strerror
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 2**29}]
    with (
        open_stream(put(tmp_path / "a.xz", lzma.compress(DATA, filters=filters))) as stream,
        pytest.raises(OSError) as raised,
    ):
        stream.read()
    assert "Memory usage limit exceeded" in raised.value.strerror


def test_without_the_package_for_zstd_it_says_which_one(tmp_path, monkeypatch):
    for name in ("compression.zstd", "backports.zstd"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UsageError, match=r"pip install 'latentcli\[zst\]'"):
        open_stream(put(tmp_path / "a.tar.zst", b"x"))


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
    with pytest.raises(OSError, match="not a regular file"):
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
    deadline = time.monotonic() + 60
    while any("read-ahead" in thread.name for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
