"""A real S3 server on this machine: what a store needs of it, and what faults do to that."""

from __future__ import annotations

import hashlib
import json
import math
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from harness import s3

from latentcli.core.errors import StoreError
from latentcli.core.types import InputRow
from latentcli.shards.storage import byte_stream, remote_path
from latentcli.shards.storage.atomic_write import atomic_write, duplicate
from latentcli.shards.storage.byte_stream import open_stream
from latentcli.shards.storage.paths import path_of
from latentcli.shards.store.input_list import InputList, write_inputs
from latentcli.shards.store.lock import StoreLock
from latentcli.shards.tensors.file import SafetensorsFile
from latentcli.shards.tensors.write import write_safetensors

pytestmark = s3.needs_s3

ALWAYS = math.inf
DATA = random.Random(5).randbytes(300_000)


@pytest.fixture(scope="module")
def server():
    with s3.s3_server() as running:
        yield running


@pytest.fixture
def store(server, monkeypatch):
    monkeypatch.setenv("LATENTCLI_RETRY_SECONDS", "0.3")
    monkeypatch.setenv("LATENTCLI_LEASE_SECONDS", "0.3")
    return path_of(server.bucket()) / "deep" / "store"


@pytest.fixture
def proxy(server, store):
    with server.proxy() as running:
        yield running


def names(path):
    return sorted(item.name for item in path.iterdir()) if path.exists() else []


def test_files_and_folders(store):
    assert not store.exists()
    assert not store.is_dir()
    store.mkdir(parents=True)
    for name in ("b.json", "a.json", "x.bin", "sub/c.json", "odd [1] %41+é*.json"):
        atomic_write(store / name, [name.encode()])
    assert store.is_dir() and not store.is_file() and store.parent.is_dir()
    odd = store / "odd [1] %41+é*.json"
    assert odd.read_bytes() == "odd [1] %41+é*.json".encode()
    assert sorted(p.name for p in store.glob("*.json")) == ["a.json", "b.json", odd.name]
    assert names(store) == sorted(["a.json", "b.json", odd.name, "sub", "x.bin"])
    assert [str(p) for p, _ in store.find()][-2:] == [f"{store}/sub/c.json", f"{store}/x.bin"]
    sizes = {p.name: info and info.st_size for p, info in store.entries()}
    assert sizes["x.bin"] == 5 and sizes["sub"] is None
    odd.unlink()
    assert not odd.exists() and (store / "a.json").exists()
    odd.unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError):
        odd.unlink()


def test_a_copy_inside_a_folder(store, proxy):
    folder = store / "odd [1] %41+é"
    atomic_write(folder / "000000.1.tar", [DATA])
    atomic_write(folder / "000000.tar", [b"old"])
    proxy.fail("500", 2, "PUT")
    duplicate(folder / "000000.1.tar", "000000.tar")
    assert proxy.broken == 2
    assert names(folder) == ["000000.1.tar", "000000.tar"]
    (folder / "000000.1.tar").unlink()
    assert (folder / "000000.tar").read_bytes() == DATA
    assert (folder / "000000.tar").stat().st_size == len(DATA)
    with pytest.raises(FileNotFoundError):
        (folder / "000000.1.tar").copy_to("000000.tar")
    with pytest.raises(StoreError, match=r"000000\.tar cannot be written"):
        duplicate(folder / "000000.1.tar", "000000.tar")
    proxy.fail("500", ALWAYS, "PUT")
    with pytest.raises(StoreError, match="the copy failed 6 times"):
        duplicate(folder / "000000.tar", "000001.tar")
    proxy.heal()
    assert names(folder) == ["000000.tar"]


def test_nothing_that_another_process_did_is_missed(store):
    atomic_write(store / "a", [b"1"])
    assert names(store) == ["a"] and (store / "a").stat().st_size == 1
    code = (
        "import sys; from latentcli.shards.storage.paths import path_of; s = path_of(sys.argv[1]);"
        "(s / 'b').write_bytes(b'22'); (s / 'a').write_bytes(b'333'); (s / 'c').exists()"
    )
    subprocess.run([sys.executable, "-c", code, str(store)], check=True)
    assert names(store) == ["a", "b"] and (store / "b").exists()
    assert (store / "a").stat().st_size == 3 and (store / "a").read_bytes() == b"333"


def test_a_forked_and_a_new_process_can_read(store):
    atomic_write(store / "x", [DATA])
    assert (store / "x").read_bytes() == DATA
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply_async((store / "x").read_bytes).get(60) == DATA
    # Not forked from here, where other threads may hold locks.
    code = """
import hashlib, multiprocessing, sys
from latentcli.shards.storage.paths import path_of

def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()

path = path_of(sys.argv[1])
print(digest(path))
with multiprocessing.get_context("fork").Pool(1) as pool:
    print(pool.apply_async(digest, (path,)).get(60))
"""
    told = subprocess.run(
        [sys.executable, "-c", code, str(store / "x")],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert told.stdout.split() == [hashlib.sha256(DATA).hexdigest()] * 2


def test_buckets_are_not_made(server, store):
    missing = path_of("s3://no-such-bucket-here/x")
    assert not missing.exists()
    with pytest.raises(StoreError, match="cannot be written: the bucket does not exist"):
        atomic_write(missing / "y", [b"1"])
    with pytest.raises(FileNotFoundError):
        missing.read_bytes()


def test_no_credentials_is_a_plain_and_quick_error(store, monkeypatch, tmp_path):
    monkeypatch.setenv("LATENTCLI_RETRY_SECONDS", "1000")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(PermissionError) as raised:
        (store / "x").read_bytes()
    assert raised.value.strerror == "no credentials for s3:// were found, or they do not work"


@pytest.mark.parametrize("kind", ["500", "503", "cut", "stall"])
def test_reads_survive_faults(store, proxy, kind, monkeypatch):
    monkeypatch.setattr(remote_path, "READ_AHEAD", 50_000)
    monkeypatch.setattr(byte_stream, "RANGE", 50_000)
    atomic_write(store / "x", [DATA])
    times = 2 if kind == "stall" else 3
    proxy.fail(kind, times, "GET")
    assert (store / "x").read_bytes() == DATA
    assert proxy.broken == times
    proxy.fail(kind, 1, "GET")
    with (store / "x").open() as file:
        assert file.read() == DATA
    proxy.fail(kind, 1, "GET")
    with open_stream(store / "x") as stream:
        assert stream.read() == DATA
    assert proxy.broken == times + 2


def test_a_read_that_never_works_ends_in_a_plain_sentence(store, proxy):
    atomic_write(store / "x", [DATA])
    proxy.fail("503", ALWAYS, "GET")
    with pytest.raises(OSError) as raised:
        (store / "x").read_bytes()
    assert raised.value.strerror.startswith("the reading failed 6 times within ")
    assert raised.value.strerror.endswith(" because the storage asks for fewer requests")
    proxy.heal()
    proxy.fail("cut", ALWAYS, "GET")
    with pytest.raises(OSError, match="the connection was lost"):
        (store / "x").read_bytes()


def test_a_refusal_is_not_tried_again(store, proxy, monkeypatch):
    monkeypatch.setenv("LATENTCLI_RETRY_SECONDS", "1000")
    atomic_write(store / "x", [DATA])
    for kind, words in (("403", "the storage does not permit it"), ("400", "refuses it")):
        proxy.fail(kind, ALWAYS, "GET")
        before = proxy.broken
        with pytest.raises(OSError) as raised:
            (store / "x").read_bytes()
        assert words in raised.value.strerror
        assert proxy.broken == before + 1
        proxy.heal()


@pytest.mark.parametrize("kind", ["500", "503", "cut_upload", "stall"])
def test_writes_survive_faults(store, proxy, kind):
    proxy.fail(kind, 1 if kind == "stall" else 3, "PUT")
    proxy.fail("500", 2, "HEAD")
    digest = atomic_write(store / "x", [DATA, DATA])
    assert digest.bytes == 600_000
    assert proxy.broken > 2
    assert (store / "x").read_bytes() == DATA + DATA


@pytest.mark.parametrize("kind", ["500", "cut_upload"])
def test_an_upload_that_never_works_leaves_no_object(store, proxy, kind):
    atomic_write(store / "old", [b"old"])
    proxy.fail(kind, ALWAYS, "PUT")
    for name in ("new", "old"):
        with pytest.raises(StoreError) as raised:
            atomic_write(store / name, [DATA])
        text = str(raised.value)
        assert text.startswith(f"{store / name} cannot be written: the upload failed 6 times")
        assert "run the same command again to finish the rest" in text
    proxy.heal()
    assert names(store) == ["old"]
    assert (store / "old").read_bytes() == b"old"


def test_an_upload_in_parts_is_seen_when_it_is_complete_or_not_at_all(
    server, store, proxy, monkeypatch
):
    monkeypatch.setattr(remote_path, "_PART", 5 * 2**20)
    # A busy machine answers late. An upload whose beginning was given up for that is nobody's.
    monkeypatch.setenv("LATENTCLI_RETRY_SECONDS", "4")
    data = DATA * 40
    proxy.fail("500", 1, "PUT", "partNumber=2")
    proxy.fail("503", 1, "POST", "uploadId")
    atomic_write(store / "x", [data])
    assert any("partNumber=3" in line for line in proxy.requests)
    assert (store / "x").read_bytes() == data
    proxy.fail("cut_upload", ALWAYS, "PUT", "partNumber=2")
    with pytest.raises(StoreError, match="failed 6 times"):
        atomic_write(store / "y", [data])
    assert names(store) == ["x"]
    # What came of it was taken back: it would cost its owner money for ever.
    assert b"<Upload>" not in server.uploads(str(store.parent.parent))


WRITE = """
import sys
from latentcli.shards.storage.paths import path_of
from latentcli.shards.storage.atomic_write import atomic_write, duplicate
for i in range(100):
    atomic_write(path_of(sys.argv[1]) / f"{i}", [bytes([i]) * 3_000_000])
    print(i, flush=True)
"""


def test_a_killed_upload_leaves_no_object_in_part(store, tmp_path):
    environ = os.environ | {"TMPDIR": str(tmp_path)}
    for number in range(3):
        command = [sys.executable, "-c", WRITE, str(store)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environ) as process:
            for _ in range(number + 1):
                process.stdout.readline()
            time.sleep(0.01 * number)
            process.send_signal(signal.SIGKILL)
        assert len(names(store)) >= number + 1
        for path in names(store):
            assert (store / path).read_bytes() == bytes([int(path)]) * 3_000_000
    if Path("/proc/self/fd").is_dir():
        assert list(tmp_path.iterdir()) == []


def test_a_shard_and_a_list(store, proxy):
    tensors = {f"k{i}/latent": torch.randn(4, 8, 8) for i in range(500)}
    write_safetensors(store / "shards" / "0.safetensors", tensors, {"format": "latentcli"})
    proxy.fail("cut", 3, "GET")
    with SafetensorsFile(store / "shards" / "0.safetensors") as file:
        proxy.fail("500", 1, "GET")
        assert torch.equal(file.tensor("k7/latent"), tensors["k7/latent"])
        assert torch.equal(file.rows("k499/latent", 1, 3), tensors["k499/latent"][1:3])
    rows = [InputRow(f"k{i}", f"s3://b/{i}", i // 10, i, i) for i in range(1000)]
    write_inputs(store / "inputs.jsonl", rows)
    proxy.fail("cut", 2, "GET")
    assert list(InputList.open(store / "inputs.jsonl")) == rows
    assert proxy.broken == 6


HOLD = """
import sys
from latentcli.shards.store.lock import StoreLock
from latentcli.shards.storage.paths import path_of
with StoreLock(path_of(sys.argv[1])) as lock:
    print(lock.held, flush=True)
    sys.stdin.read()
"""


def test_two_jobs_on_one_store(store):
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", HOLD, str(store)]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as other:
        assert other.stdout.readline() == "True\n"
        with pytest.raises(StoreError) as raised:
            StoreLock(store).__enter__()
        assert f"another job is writing to {store}: process {other.pid} on host" in str(
            raised.value
        )
        other.kill()
    assert names(store) == ["lease.json"]
    with StoreLock(store) as lock:
        assert json.loads((store / "lease.json").read_bytes())["pid"] == os.getpid()
        lock.check()
    assert names(store) == []


def test_a_file_that_must_be_new_takes_nobodys_place(store):
    (store / "x").write_bytes(b"first", new=True)
    with pytest.raises(OSError):
        (store / "x").write_bytes(b"second", new=True)
    assert (store / "x").read_bytes() == b"first"
    (store / "x").write_bytes(b"third")
    assert (store / "x").read_bytes() == b"third"


def test_a_lease_survives_short_trouble(store, proxy):
    with StoreLock(store) as lock:
        proxy.fail("500", 3)
        deadline = time.monotonic() + 30
        while proxy.broken < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
        lock.check()
    assert proxy.broken == 3
    assert names(store) == []
