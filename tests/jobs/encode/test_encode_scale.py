"""What must not grow with the inputs: seconds, memory, and what a job that is done does again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from harness import scale, streams
from harness.measure import Used, measure
from harness.scripts import run_script
from jobkit import encode, toy_pictures, tree

from latentcli.latents.stats import ChannelSums
from latentcli.shards.store.commit import read_record
from latentcli.shards.store.manifest import read_manifest
from latentcli.shards.store.writer import StoreSums

WRITTEN = ("manifest.json", "failures.jsonl", "inputs.jsonl")


@pytest.fixture
def store(mixed, model, tmp_path):
    """23 pictures encoded and two failed."""
    encode(mixed, tmp_path / "store", model)
    return tmp_path / "store"


def files_of(store: Path) -> dict[str, int]:
    """Which file stands behind each name: another one where it was written again."""
    return {name: (store / name).stat().st_ino for name in WRITTEN}


def test_a_complete_store_is_left_as_it_is(mixed, model, store):
    before, bytes_before = files_of(store), tree(store)
    handle = os.open(store / "manifest.json", os.O_RDONLY)  # so that its number is not given again
    document = encode(mixed, store, model)
    os.close(handle)
    assert files_of(store) == before and tree(store) == bytes_before
    assert (document["encoded"], document["skipped"], document["failed"]) == (0, 23, 2)
    assert document["inputs"] == 25 and document["failures"] == str(store / "failures.jsonl")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def spoil_totals(path: Path) -> None:
    document = json.loads(path.read_text())
    document["totals"]["bytes"] += 1
    path.write_text(json.dumps(document))


def spoil_channels(path: Path) -> None:
    document = json.loads(path.read_text())
    document["channels"]["std"][0] *= 2
    path.write_text(json.dumps(document))


def still_running(path: Path) -> None:
    path.write_text(path.read_text().replace('"complete"', '"running"'))


DAMAGE = {
    "failures cut": ("failures.jsonl", cut),
    "failures gone": ("failures.jsonl", Path.unlink),
    "totals": ("manifest.json", spoil_totals),
    "channels": ("manifest.json", spoil_channels),
    "not finished": ("manifest.json", still_running),
    "record cut": ("shards/000002.json", cut),
    "record gone": ("shards/000002.json", Path.unlink),
    "shard cut": ("shards/000003.safetensors", cut),
    "shard gone": ("shards/000003.safetensors", Path.unlink),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_what_is_not_as_it_was_left_is_made_good(mixed, model, store, name):
    whole = tree(store)
    file, damage = DAMAGE[name]
    damage(store / file)
    assert tree(store) != whole
    document = encode(mixed, store, model)
    assert tree(store) == whole
    assert bool(document["encoded"]) == file.startswith("shards")


def test_records_are_read_once(mixed, model, store):
    opened = []
    watching = True

    def hook(event: str, words: tuple) -> None:
        if watching and event == "open" and str(words[0]).startswith(str(store / "shards")):
            opened.append(Path(words[0]).name)

    sys.addaudithook(hook)  # it stays until the process ends
    encode(mixed, store, model)
    watching = False
    assert sorted(opened) == [f"{unit:06d}.json" for unit in range(7)]


def test_sums_of_a_store_are_those_of_its_manifest(mixed, model, store):
    sums = StoreSums(ChannelSums())
    for unit in range(7):
        sums.add(read_record(store, unit))
    manifest = read_manifest(store)
    assert sums.completed(manifest) == manifest and sums.are_written(store, manifest)
    sums.add(read_record(store, 0))
    assert not sums.are_written(store, manifest)


BUILD = """
import sys, torch
from latentcli.models.registry import load_model
from latentcli.models import fcdm, dinac, linear, tiny
with torch.device("meta"):
    for module in (fcdm, dinac, linear, tiny):
        module.FAMILY.build(module.FAMILY.tiny, None)
assert not load_model(sys.argv[1]).training
print("torch._dynamo" in sys.modules)
"""


def test_a_start_does_not_load_the_compiler(model):
    done = subprocess.run(
        [sys.executable, "-c", BUILD, model], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


def planned(folder: Path, model: str, count: int) -> Used:
    """`latentcli plan` of so many names."""
    files = sorted(toy_pictures(folder / "pictures", 10, [(16, 16)]).rglob("*.jpg"))
    names = scale.linked(folder / f"names{count}", files, count)
    used = measure(scale.words("plan", names, folder / "store", model))
    assert json.loads(used.output)["to_encode"] == count
    return used


def test_plan_of_twenty_thousand_names(model, tmp_path):
    few, many = (planned(tmp_path, model, count) for count in (100, 20_000))
    # A million would take 50 times that: within a minute and a gigabyte. A start of the command,
    # some two seconds of work, tells how quick this machine is just now.
    assert many.cpu - few.cpu < 0.6 * few.cpu, (few, many)
    assert many.tree - few.tree < 12, (few, many)


def test_the_measure_sees_what_a_process_and_its_children_hold():
    child = "held = bytearray(64 << 20); import time; time.sleep(0.5)"
    words = "import subprocess, sys; held = bytearray(96 << 20); subprocess.run(sys.argv[1:])"
    used = measure([sys.executable, "-c", words, sys.executable, "-c", child])
    assert 96 < used.main < 126 and 64 < used.worker < 94
    assert 160 < used.tree < 220 and used.seconds > 0.5


def test_memory_does_not_grow_with_the_tars(model, tmp_path):
    few, many = (
        streams.encode_tars(tmp_path, model, 1, "webdataset", count, 100) for count in (2, 6)
    )
    assert many.tree / few.tree < 1.1, (few, many)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_pipe(model):
    pictures = streams.noisy_pictures()
    few, many = (
        streams.encode_pipe(model, 1, streams.Endless(megabytes * 10**6, pictures))
        for megabytes in (20, 200)
    )
    assert many.tree / few.tree < 1.1, (few, many)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ten_and_a_hundred_tars_and_two_gigabytes():
    assert run_script("stream_memory.py") == 0


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_commands_on_a_million_names():
    assert run_script("scale_commands.py") == 0


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_ranks_are_as_fast_as_two_threads():
    assert run_script("rank_throughput.py", "--only", "model") == 0
