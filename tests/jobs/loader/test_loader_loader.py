"""Tasks cover every input once, and chunks come in order, equal with any number of workers."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from harness.kill_paths import encode_command
from harness.processes import start, workers
from hypothesis import given, settings
from hypothesis import strategies as st
from jobkit import encode, toy_pictures, tree
from PIL import Image

from latentcli.core.types import InputRow, Member, Row
from latentcli.images.codec import DecodePolicy
from latentcli.images.formats import IMAGE_SUFFIXES
from latentcli.images.preprocess import PreprocessSpec
from latentcli.jobs.loader.loader import FEW_INPUTS, open_chunks, pick_workers
from latentcli.jobs.loader.prepare import TASK_SIZE, Intake, RawSample, Recipe, Task, unit_tasks
from latentcli.jobs.runtime.machine import carried, cores
from latentcli.shards.sources.find_inputs import assign_units, find_inputs
from latentcli.shards.store.input_list import InputList, write_inputs

RECIPE = Recipe(DecodePolicy(), PreprocessSpec(None, 16))


def intake(pictures: Path, folder: Path, per_unit: int, recipe: Recipe = RECIPE) -> Intake:
    path = folder / "inputs.jsonl"
    write_inputs(path, assign_units(find_inputs([str(pictures)], IMAGE_SUFFIXES), per_unit))
    return Intake(InputList.open(path), recipe)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.data())
def test_tasks_cover_all_rows_once(tmp_path_factory, counts, data):
    rows = [InputRow(f"{u}-{i}", "/x", u) for u, n in enumerate(counts) for i in range(n)]
    path = tmp_path_factory.getbasetemp() / "tasks.jsonl"
    write_inputs(path, rows)
    inputs = InputList.open(path)
    units = sorted(data.draw(st.sets(st.sampled_from(range(len(counts))))))
    size, most = data.draw(st.sampled_from([(64, TASK_SIZE), (None, 1), (1024, 2), (4096, 1)]))
    spec = PreprocessSpec((size, size) if size else None, 16)
    tasks = list(unit_tasks(Intake(inputs, Recipe(DecodePolicy(), spec)), units))
    assert all(1 <= task.count <= most for task in tasks)
    found = [row for t in tasks for row in inputs.rows(t.unit, t.start, t.count)]
    assert found == [row for row in rows if row.unit in units]
    assert [task.unit for task in tasks if task.last] == units


def test_a_chunk_keeps_order_and_pixels(mixed, tmp_path):
    source = intake(mixed, tmp_path, 25)
    rows = source.inputs.rows(0)
    with open_chunks(source, [Task(0, 0, 25)], 0) as chunks:
        (chunk,) = chunks
    assert len({pixels.shape for pixels in chunk.pixels if pixels is not None}) == 4
    for row_in, (row, pixels) in zip(rows, chunk.pictures(), strict=True):
        assert row.key == row_in.key
        if row.status == "failed":
            assert pixels is None and row.stage == "decode_image"
            continue
        expected = np.asarray(Image.open(row_in.source))
        assert torch.equal(pixels, torch.from_numpy(expected.copy()).permute(2, 0, 1))
        assert row.original_size == (expected.shape[1], expected.shape[0])
    assert set(chunk.seconds) == {"read", "decode_image", "preprocess"}
    assert all(seconds > 0 for seconds in chunk.seconds.values())


def mixed_tasks(source: Intake, pictures: Path) -> list[Task]:
    """Rows of the list, samples whose bytes are read, a refused one, and an empty unit."""
    paths = sorted(pictures.rglob("*.jpg"))
    others = (Member("txt", b"a cat"),)
    read = [RawSample(Row(p.stem, str(p), "ok"), p.read_bytes(), others) for p in paths[:9]]
    refused = Row("bad", "x", "failed", stage="read", error="it is a link")
    read.insert(4, RawSample(refused, None))
    return [
        *unit_tasks(source, [0, 2]),
        Task(3, 0, 10, tuple(read), True),
        Task(4, 0, 0, (), True),
        *unit_tasks(source, [1]),
    ]


@pytest.mark.parametrize(("workers", "size"), [(1, (32, 48)), (3, None)])
def test_workers_give_the_same_chunks_in_order(mixed, tmp_path, workers, size):
    recipe = Recipe(DecodePolicy(), PreprocessSpec(size, 16))
    source = intake(mixed, tmp_path, 10, recipe)
    tasks = mixed_tasks(source, mixed)
    with open_chunks(source, tasks, 0) as chunks:
        here = list(chunks)
    with open_chunks(source, iter(tasks), workers) as chunks:
        there = list(chunks)
    assert [chunk.task for chunk in there] == [chunk.task for chunk in here] == tasks
    for a, b in zip(here, there, strict=True):
        assert a.rows == b.rows
        assert set(a.seconds) == set(b.seconds)
        for x, y in zip(a.pixels, b.pixels, strict=True):
            assert (x is None and y is None) or torch.equal(x, y)


@pytest.mark.timeout(120)
def test_killed_workers_are_replaced_and_the_store_is_the_same(model, tmp_path):
    """The system kills the largest process first when memory runs out."""
    pictures, store = toy_pictures(tmp_path / "pictures", 400), tmp_path / "store"
    command = encode_command(pictures, model, workers=1, samples_per_shard=4)
    process = start(command, store)
    while not (store / "shards" / "000001.json").exists():
        assert process.poll() is None, process.stderr.read()
    for pid in workers(process.pid):
        os.kill(pid, signal.SIGKILL)
    assert process.communicate() and process.returncode == 0
    encode(pictures, tmp_path / "again", model)
    assert tree(store) == tree(tmp_path / "again")


@pytest.mark.timeout(120)
def test_workers_that_are_always_killed_are_an_error_and_no_hang(model, tmp_path):
    pictures, store = toy_pictures(tmp_path / "pictures", 400), tmp_path / "store"
    process = start(encode_command(pictures, model, workers=1, samples_per_shard=4), store)
    while not (store / "manifest.json").exists():
        assert process.poll() is None, process.stderr.read()
    while process.poll() is None:
        for pid in workers(process.pid):
            os.kill(pid, signal.SIGKILL)
    errors = process.communicate()[1].decode()
    assert process.returncode == 1
    assert "loader process" in errors and "same command again" in errors
    assert "An unexpected" not in errors
    assert not [name for name in tree(store) if ".tmp-" in name]


@pytest.mark.parametrize(
    ("machine", "beside", "workers"),
    [(1, 1, 1), (2, 1, 2), (8, 1, 8), (10, 1, 8), (16, 1, 14), (64, 4, 14), (64, 8, 8), (8, 16, 1)],
)
def test_workers_go_with_the_cores(monkeypatch, machine, beside, workers):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {*range(machine)})
    assert pick_workers(None, FEW_INPUTS, beside) == workers


def test_workers_are_picked_by_need():
    assert pick_workers(None, FEW_INPUTS - 1) == 0
    assert pick_workers(None, FEW_INPUTS) == max(min(cores(), 8), cores() - 2)
    assert pick_workers(0, 10**6) == 0
    assert pick_workers(3, 1) == 3
    assert pick_workers(999, 10**6) == carried() and pick_workers(999, 1, 2) == carried() // 2
