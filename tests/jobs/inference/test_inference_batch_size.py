"""Batch sizes that are found by trial, and that a store keeps."""

from __future__ import annotations

import pytest
import torch
from encodekit import LINEAR, pictures
from jobkit import encode, tree

from latentcli.core.errors import StoreError
from latentcli.images.buckets import make_buckets
from latentcli.images.preprocess import PreprocessSpec
from latentcli.jobs.encode.plan import stored_batch_size
from latentcli.jobs.inference.accelerator import Cpu
from latentcli.jobs.inference.batch_size import auto_batch_size, best_batch, tried_size
from latentcli.jobs.inference.engine import load_engine

EACH = 2**20
"""Bytes that a picture takes in the trials below."""


def device(rate: float = 100.0, full: int = 16, most: int = 10**9, error: object = None):
    """A trial on a device that does `full` pictures in the time of one, and holds `most`."""
    tried: list[int] = []

    def attempt(count: int) -> tuple[float, float]:
        tried.append(count)
        if count > most:
            raise error or torch.OutOfMemoryError("out of memory")
        return max(count, full) / rate, float(count * EACH)

    return attempt, tried


@pytest.mark.parametrize(
    ("full", "best", "tried"),
    [
        (16, 16, [4, 8, 16, 32]),
        (1, 4, [4, 8]),
        (10**6, 256, [4, 8, 16, 32, 64, 128, 256]),
    ],
)
def test_it_grows_while_that_is_faster(full, best, tried):
    attempt, seen = device(full=full)
    assert best_batch(attempt, 1e15) == best and seen == tried


def test_it_leaves_room():
    attempt, tried = device(full=1000)
    assert best_batch(attempt, 31 * EACH) == 16 and tried == [4, 8, 16]


@pytest.mark.parametrize(
    ("most", "best", "tried"),
    [(9, 8, [4, 8, 16]), (3, 2, [4, 2, 4]), (1, 1, [4, 2, 1, 2]), (0, 1, [4, 2, 1])],
)
def test_what_runs_out_of_memory_is_too_much(most, best, tried):
    attempt, seen = device(full=1000, most=most)
    assert best_batch(attempt, 1e15) == best and seen == tried


def test_what_a_kernel_refuses_is_too_much_but_not_the_first():
    refusal = RuntimeError("integer out of range")
    attempt, _ = device(full=1000, most=9, error=refusal)
    assert best_batch(attempt, 1e15) == 8
    attempt, _ = device(most=3, error=refusal)
    with pytest.raises(RuntimeError, match="out of range"):
        best_batch(attempt, 1e15)


def test_sizes_that_are_tried():
    assert tried_size(PreprocessSpec((512, 256), 16)) == (512, 256)
    assert tried_size(PreprocessSpec(None, 96)) == (1056, 1056)
    # Of larger pictures fewer go together, with as many pixels.
    assert tried_size(PreprocessSpec((4096, 2048), 16)) == (1024, 1024)
    table = make_buckets("area", 256, None, 16)
    width, height = tried_size(PreprocessSpec(None, 16, buckets=table))
    assert width * height == max(w * h for w, h in table.table)


def test_a_cpu_gets_8(model):
    engine = load_engine(model, device="cpu")
    assert auto_batch_size(engine, PreprocessSpec(None, 16)) == 8


def test_a_store_keeps_its_batch_size(tmp_path, monkeypatch):
    folder = pictures(tmp_path / "in", ((64, 48),) * 3)
    store = tmp_path / "store"
    assert encode(folder, store, LINEAR, batch_size=None)["batch_size"] == 8
    monkeypatch.setattr(Cpu, "batch_size", 32)
    pictures(tmp_path / "in", ((64, 48),) * 5)
    told = encode(folder, store, LINEAR, batch_size=None)
    assert (told["batch_size"], told["encoded"], stored_batch_size(store)) == (8, 2, 8)
    assert encode(folder, tmp_path / "new", LINEAR, batch_size=None)["batch_size"] == 32
    before = tree(store)
    with pytest.raises(StoreError, match="batch_size is 8 there and 5 now"):
        encode(folder, store, LINEAR, batch_size=5)
    assert tree(store) == before


def test_no_store_has_no_batch_size(tmp_path):
    assert stored_batch_size(tmp_path / "none") is None
    (tmp_path / "manifest.json").write_text("{}")
    assert stored_batch_size(tmp_path) is None


def test_plan_says_what_the_store_has(tmp_path):
    folder = pictures(tmp_path / "in", ((64, 48),) * 3)
    encode(folder, tmp_path / "store", LINEAR, batch_size=4)
    planned = encode(folder, tmp_path / "store", LINEAR, batch_size=None, dry_run=True)
    assert planned["refused"] == [] and planned["to_encode"] == 0
