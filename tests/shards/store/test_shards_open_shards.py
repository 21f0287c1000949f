"""The open shards of all stores of a process stay within what the process may open."""

from __future__ import annotations

import gc
import os
import pickle
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import storekit
import torch
from storekit import run_job

from latentcli.shards.store import open_shards
from latentcli.shards.store.reader import StoreReader

FEW_DESCRIPTORS = """
import os, resource, sys
from itertools import zip_longest
from latentcli.shards.store.reader import StoreReader
import torch  # before the limit: importing it opens files
stores = [StoreReader(__import__("pathlib").Path(path)) for path in sys.argv[1:]]
keys = [list(store) for store in stores]
resource.setrlimit(resource.RLIMIT_NOFILE, (48, 48))
before = len(os.listdir("/proc/self/fd"))
for turn in range(2):
    for at in zip_longest(*keys):
        for store, key in zip(stores, at):
            assert key is None or len(store.tensors(key)) == 1
print(sum(len(store.units) for store in stores), len(os.listdir("/proc/self/fd")) - before)
"""


@pytest.fixture(autouse=True, scope="module")
def no_waiting_for_the_disk():
    """Some stores here have many shards, and none outlives its test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture(autouse=True)
def nothing_open():
    """What another test left open does not count."""
    gc.collect()
    open_shards._recent.clear()


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store") / "store"
    run_job(folder, count=50)
    return folder


def keys_of(reader: StoreReader) -> list[str]:
    return list(reader)


def held() -> int:
    """Files of shards that this process has open."""
    links = Path("/proc/self/fd").iterdir()
    return sum(os.path.realpath(link).endswith(".safetensors") for link in links)


def test_stores_of_many_shards_under_a_small_limit(tmp_path):
    """One of 160 shards and six of 20, read by turns; each process of a loader has these limits."""
    run_job(tmp_path / "many", count=160, per_unit=1)
    folders = [tmp_path / str(number) for number in range(6)]
    for folder in folders:
        run_job(folder, count=20, per_unit=1)
    command = [sys.executable, "-c", FEW_DESCRIPTORS, tmp_path / "many", *folders]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == ["280", "12"]


@pytest.mark.parametrize(
    ("soft", "shards"),
    [
        (1 << 16, open_shards.MOST),
        (1024, 256),
        (64, 16),
        (3, 1),
        (resource.RLIM_INFINITY, open_shards.MOST),
    ],
)
def test_the_limit_leaves_room_for_others(monkeypatch, soft, shards):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, soft))
    assert open_shards.limit() == shards


def test_the_least_lately_used_shard_of_all_stores_is_closed(store, monkeypatch):
    monkeypatch.setattr(open_shards, "limit", lambda: 3)
    one, two = StoreReader(store), StoreReader(store)
    first, second, third = (f"img/{number:04d}" for number in (0, 4, 8))
    for reader, key in ((one, first), (one, second), (two, first), (one, first), (two, third)):
        reader.tensors(key)
    assert (sorted(one._shards._shards), sorted(two._shards._shards)) == ([0], [0, 2])
    assert held() == 3


def opened(reader: StoreReader, monkeypatch: pytest.MonkeyPatch, units: list[int]) -> int:
    """How many shards are opened to read a sample of each of these units, of four samples each."""
    count, really = 0, reader._shards.get

    def get(unit, open_file):
        def counted(number):
            nonlocal count
            count += 1
            return open_file(number)

        return really(unit, counted)

    monkeypatch.setattr(reader._shards, "get", get)
    for unit in units:
        reader.tensors(f"img/{4 * unit:04d}", unit)
    return count


def test_many_shards_stay_open(tmp_path, monkeypatch):
    """Where few are held, a loop in random order opens a shard for nearly each sample."""
    run_job(tmp_path / "many", count=4 * 300, per_unit=4)
    reader = StoreReader(tmp_path / "many")
    assert opened(reader, monkeypatch, [*range(300), *reversed(range(300)), 7]) == 300
    assert held() == 300


def test_tensors_of_open_shards_are_limited_but_for_a_few(store, monkeypatch):
    """Of these shards each has at most four."""
    monkeypatch.setattr(open_shards, "FEW", 3)
    monkeypatch.setattr(open_shards, "TENSORS", 20)
    reader = StoreReader(store)
    assert opened(reader, monkeypatch, [*range(12)]) == 12
    sizes = {unit: len(shard.file.names) for unit, shard in reader._shards._shards.items()}
    assert held() == len(sizes) > 3 and sum(sizes.values()) <= 20 < sum(sizes.values()) + 4
    assert sorted(sizes) == [*range(12)][-len(sizes) :]
    monkeypatch.setattr(open_shards, "TENSORS", 1)
    reader.tensors("img/0000")
    assert held() == 3


def test_a_store_that_is_gone_holds_nothing(store, monkeypatch):
    monkeypatch.setattr(open_shards, "limit", lambda: 3)
    lasting = StoreReader(store)
    lasting.tensors("img/0000")
    for _ in range(5):
        StoreReader(store).tensors("img/0004")
    assert held() == 1 and list(lasting._shards._shards) == [0]


def test_copies_and_forks_open_their_own(store):
    reader = StoreReader(store)
    expected = reader.tensors("img/0001")["img/0001/latent"]
    copy = pickle.loads(pickle.dumps(reader))
    assert len(copy._shards) == 0 and len(reader._shards) == 1
    assert torch.equal(copy.tensors("img/0001")["img/0001/latent"], expected)
    with open_shards._lock:  # as another thread may have it at the moment of the fork
        child = os.fork()
        if child == 0:
            signal.alarm(60)  # one that waits for the lock would wait for ever
            again = reader.tensors("img/0001")["img/0001/latent"]
            other = reader.tensors("img/0008")["img/0008/latent"]
            right = torch.equal(again, expected) and torch.equal(other, storekit.latent("img/0008"))
            os._exit(0 if right else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_threads_read_at_once(store, monkeypatch):
    monkeypatch.setattr(open_shards, "limit", lambda: 2)
    reader = StoreReader(store)
    keys, wrong = keys_of(reader), []

    def read(offset: int) -> None:
        try:
            for key in keys[offset:] + keys[:offset]:
                found = reader.tensors(key)[f"{key}/latent"]
                if not torch.equal(found, storekit.latent(key)):
                    wrong.append(key)
        except Exception as error:
            wrong.append(repr(error))

    threads = [threading.Thread(target=read, args=(7 * number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == [] and len(reader._shards) <= 2


def test_the_limit_is_looked_up_each_time(store):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    reader = StoreReader(Path(store))
    for key in keys_of(reader):
        reader.tensors(key)
    assert len(reader._shards) == 13
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (40, hard))
        reader.tensors("img/0000")
        assert len(reader._shards) == 10
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
