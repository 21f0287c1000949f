"""Tasks cover every input once, chunks come in order, and a dead worker is an error in words."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jobkit import toy_pictures, tree
from kill_test import encode_command, in_session, start
from PIL import Image

from latentcli.core.types import InputRow
from latentcli.images.codec import IMAGE_SUFFIXES, DecodePolicy
from latentcli.images.preprocess import PreprocessSpec
from latentcli.jobs.loader import (
    FEW_INPUTS,
    TASK_SIZE,
    Intake,
    Recipe,
    Task,
    TaskSampler,
    cores,
    load_chunks,
    pick_workers,
    prepare_chunk,
)
from latentcli.shards.inputs import InputList, write_inputs
from latentcli.shards.plan import assign_units, find_inputs

RECIPE = Recipe(DecodePolicy(), PreprocessSpec(None, 16))


def intake(pictures: Path, folder: Path, per_unit: int) -> Intake:
    path = folder / "inputs.jsonl"
    write_inputs(path, assign_units(find_inputs([str(pictures)], IMAGE_SUFFIXES), per_unit))
    return Intake(InputList.open(path), RECIPE)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.data())
def test_tasks_cover_all_rows_once(tmp_path_factory, counts, data):
    rows = [InputRow(f"{u}-{i}", "/x", u) for u, n in enumerate(counts) for i in range(n)]
    path = tmp_path_factory.getbasetemp() / "tasks.jsonl"
    write_inputs(path, rows)
    inputs = InputList.open(path)
    units = sorted(data.draw(st.sets(st.sampled_from(range(len(counts))))))
    most = data.draw(st.sampled_from([1, TASK_SIZE]))
    spec = PreprocessSpec((64, 64) if most > 1 else None, 16)
    tasks = list(TaskSampler(Intake(inputs, Recipe(DecodePolicy(), spec)), units))
    assert all(1 <= task.count <= most for task in tasks)
    found = [row for t in tasks for row in inputs.rows(t.unit, t.start, t.count)]
    assert found == [row for row in rows if row.unit in units]


def test_a_chunk_keeps_order_and_pixels(mixed, tmp_path):
    inputs = intake(mixed, tmp_path, 25).inputs
    rows = inputs.rows(0)
    chunk = prepare_chunk(rows, Task(0, 0, 25), RECIPE)
    assert len(chunk.stacks) == 4
    for source, (row, pixels) in zip(rows, chunk.pictures(), strict=True):
        assert row.key == source.key
        if row.status == "failed":
            assert pixels is None and row.stage == "decode_image"
            continue
        expected = np.asarray(Image.open(source.source))
        assert torch.equal(pixels, torch.from_numpy(expected.copy()).permute(2, 0, 1))
        assert row.original_size == (expected.shape[1], expected.shape[0])
    assert all(seconds > 0 for seconds in chunk.seconds.values())


def test_workers_give_the_same_chunks_in_order(mixed, tmp_path):
    source = intake(mixed, tmp_path, 10)
    here = list(load_chunks(source, [0, 2], 0))
    there = list(load_chunks(source, [0, 2], 2))
    assert [chunk.task for chunk in there] == [chunk.task for chunk in here]
    for a, b in zip(here, there, strict=True):
        assert (a.rows, a.places) == (b.rows, b.places)
        assert all(torch.equal(x, y) for x, y in zip(a.stacks, b.stacks, strict=True))


@pytest.mark.timeout(120)
def test_a_dead_worker_is_an_error_and_no_hang(model, tmp_path):
    """The system kills the largest process first when memory runs out."""
    pictures, store = toy_pictures(tmp_path / "pictures", 600), tmp_path / "store"
    process = start(encode_command(pictures, model, workers=1, samples_per_shard=4), store)
    while not (store / "shards" / "000001.json").exists():
        assert process.poll() is None, process.stderr.read()
    for pid in in_session(process.pid):
        if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)
    errors = process.communicate()[1].decode()
    assert process.returncode == 1
    assert "loader process" in errors and "same command again" in errors
    assert "An unexpected" not in errors
    assert not [name for name in tree(store) if ".tmp-" in name]


def test_workers_are_picked_by_need():
    assert pick_workers(None, FEW_INPUTS - 1) == 0
    assert pick_workers(None, FEW_INPUTS) == min(cores(), 8)
    assert pick_workers(0, 10**6) == 0
    assert pick_workers(3, 1) == 3
