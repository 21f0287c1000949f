"""Many shards under few descriptors, and memory that does not grow from epoch to epoch."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from harness.made_up_stores import Kind, make_store
from harness.slow import slow
from torch.utils.data import DataLoader

from latentcli import BucketBatchSampler, LatentDataset, LatentStream, collate
from latentcli.jobs.training.sample_index import Keys

SHARDS = 400
"""Several times as many as may be open, and more than there may be descriptors."""
PROGRAM = """
import json, os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
import torch
from torch.utils.data import DataLoader
from latentcli import BucketBatchSampler, LatentDataset, LatentStream, collate
from latentcli.shards.store.open_shards import limit
dataset = LatentDataset(sys.argv[1])
loaders = {
    "here": DataLoader(dataset, batch_sampler=BucketBatchSampler(dataset, 50), collate_fn=collate),
    "workers": DataLoader(dataset, batch_size=50, shuffle=True, num_workers=2),
    "stream": LatentStream(sys.argv[1], batch_size=50),
}
found = {}
for name, loader in loaders.items():
    keys = {key for batch in loader for key in batch["key"]}
    found[name] = len(keys)
    found[f"{name} files"] = len(os.listdir("/proc/self/fd"))
print(json.dumps(found | {"limit": limit()}))
"""


def test_many_shards_under_256_descriptors(tmp_path):
    store = make_store(tmp_path / "store", [[(2, 2)]] * SHARDS, Kind(captions=False))
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(store)], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert [found[name] for name in ("here", "workers", "stream")] == [SHARDS] * 3
    assert found["limit"] == 64
    assert all(found[f"{name} files"] < 128 for name in ("here", "workers", "stream"))


def anonymous(pid: int | str = "self") -> int:
    """KiB of memory of a process that are no file's."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if "RssAnon" in line))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """6 MiB of latents."""
    units = [[(16, 16)] * 100, [(32, 8)] * 100] * 4
    return make_store(tmp_path_factory.mktemp("store") / "store", units, Kind(channels=16))


@pytest.mark.parametrize("way", ["stream", slow("dataset"), slow("workers")])
def test_memory_does_not_grow(store, way):
    """Keeping a tenth of an epoch for ever would be found."""
    dataset = LatentDataset(store)
    loader: DataLoader[object] = DataLoader(
        dataset,
        batch_sampler=BucketBatchSampler(dataset, 8),
        collate_fn=collate,
        num_workers=1 if way == "workers" else 0,
        persistent_workers=way == "workers",
    )
    if way == "stream":
        loader = DataLoader(LatentStream(store, batch_size=8, shuffle_buffer=100), batch_size=None)
    held = []
    for _ in range(9):
        for _ in loader:
            pass
        gc.collect()
        pids: list[int | str] = ["self"]
        if way == "workers":
            pids += [worker.pid for worker in loader._iterator._workers]  # type: ignore[union-attr]
        held.append(sum(map(anonymous, pids)))
    assert min(held[-3:]) - min(held[3:6]) < 1500, held


def test_keys_are_not_copied_into_workers():
    """As objects, 200,000 keys would be 20 MB in each worker that looks at them."""
    keys = Keys(f"folder/of/pictures/{number:09d}" for number in range(200_000))
    read_end, write_end = os.pipe()
    pid = os.fork()
    if not pid:
        before = private()
        for _ in keys:
            pass
        os.write(write_end, str(private() - before).encode())
        os._exit(0)
    grown = int(os.read(read_end, 100))
    os.waitpid(pid, 0)
    assert grown < 2000


def private() -> int:
    """KiB that this process has written to and shares with no other."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("Private_Dirty")))
