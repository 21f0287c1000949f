"""The encode job on a GPU that torch is made to have: what is asked of it, when, in which thread.

Its values are those of a CPU, so every store here is one that a CPU makes too.
"""

from __future__ import annotations

import pytest
import torch
from encodekit import LINEAR, pictures
from harness.fake_gpu import Call, fake_gpu
from jobkit import encode, latents_of, tree

from latentcli.core.errors import UsageError
from latentcli.jobs.encode.way_out import BATCHES_BEHIND
from latentcli.jobs.runtime.reporter import Reporter

SIZES = ((64, 48),) * 7
GPU = {"device": "cuda:0", "dtype": "fp32", "batch_size": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return pictures(tmp_path_factory.mktemp("pictures") / "in", SIZES)


@pytest.mark.parametrize("options", [{}, {"store_dtype": "int8"}, {"flip": "both"}])
def test_no_thread_but_the_models_takes_memory_of_the_device(
    folder, tmp_path, monkeypatch, options
):
    """What another thread is denied, nobody halves a batch for."""
    encode(folder, tmp_path / "cpu", LINEAR, batch_size=4, **options)
    with fake_gpu(monkeypatch) as gpu:
        told = encode(folder, tmp_path / "gpu", LINEAR, **GPU, **options)
    assert (told["device"], told["encoded"]) == ("Fake GPU", 7)
    elsewhere = [call for call in gpu.calls if call.thread != "main"]
    assert {call.what for call in elsewhere} == {"wait"}
    cpu, there = latents_of(tmp_path / "cpu"), latents_of(tmp_path / "gpu")
    assert cpu.keys() == there.keys()
    assert all(torch.equal(cpu[name].float(), there[name].float()) for name in cpu)


def test_memory_that_is_short_for_the_rounding_halves_the_batch(folder, tmp_path, monkeypatch):
    denied = 0

    def allow(call: Call) -> None:
        nonlocal denied
        # The last operator of a batch counts what is not finite; the first time, it gets nothing.
        if call.what == "sum" and not denied:
            denied += 1
            raise torch.OutOfMemoryError("CUDA out of memory")

    notes: list[str] = []
    with fake_gpu(monkeypatch) as gpu:
        gpu.allow = allow
        told = encode(
            folder, tmp_path / "store", LINEAR, Reporter(note=notes.append), **GPU, workers=0
        )
    assert (told["encoded"], told["failed"], denied) == (7, 0, 1)
    assert notes == [
        "The device ran out of memory on 4 pictures of 64x48: from now on it gets 2 at once."
    ]
    with fake_gpu(monkeypatch):
        encode(folder, tmp_path / "whole", LINEAR, **GPU)
    # The sums of channels too do not depend on what came together.
    assert tree(tmp_path / "store") == tree(tmp_path / "whole")


def test_the_time_of_encode_is_the_devices_own(folder, tmp_path, monkeypatch):
    """Pinning is the host's work: it is over before the first mark, and nothing is pinned later."""
    with fake_gpu(monkeypatch) as gpu:
        encode(folder, tmp_path / "store", LINEAR, **GPU)
    order = [call.what for call in gpu.calls if call.thread == "main"]
    assert order.count("mark") == 4  # two batches
    inside = False
    for what in order:
        inside ^= what == "mark"
        assert not (inside and what == "pin")
    begin = order.index("mark")
    assert order[begin - 1] == "pin" and order[begin + 1] == "to device"
    copies = [call for call in gpu.calls if call.what == "to device"][-2:]
    assert all(call.pinned for call in copies)


def test_pictures_are_pinned_where_workers_write_them(folder, tmp_path, monkeypatch):
    """No batch is stacked or copied, and the store is the one that is made without workers."""
    encode(folder, tmp_path / "cpu", LINEAR, size="48", batch_size=4, workers=0)
    with fake_gpu(monkeypatch) as gpu:
        encode(folder, tmp_path / "gpu", LINEAR, **GPU, size="48", workers=1, self_check=False)
    assert (gpu.count("pin in place"), gpu.count("unpin")) == (1, 1)
    order = [call.what for call in gpu.calls if call.thread == "main"]
    assert "pin" not in order[: order.index("mark")]  # later there is one for what comes back
    copies = [call for call in gpu.calls if call.what == "to device"][-2:]
    assert all(call.pinned for call in copies)
    cpu, there = latents_of(tmp_path / "cpu"), latents_of(tmp_path / "gpu")
    assert cpu.keys() == there.keys()
    assert all(torch.equal(cpu[name], there[name]) for name in cpu)


def test_pictures_that_lie_apart_are_copied_once(folder, tmp_path, monkeypatch):
    """Into pinned memory, and not into other memory first."""
    stacked: list[bool] = []
    stack = torch.stack

    def watched(tensors, dim=0, *, out=None):
        stacked.append(out is not None and out.is_pinned())
        return stack(tensors, dim, out=out)

    with fake_gpu(monkeypatch) as gpu:
        monkeypatch.setattr(torch, "stack", watched)
        encode(folder, tmp_path / "gpu", LINEAR, **GPU, workers=0, self_check=False)
    assert stacked == [True, True]
    copies = [call for call in gpu.calls if call.what == "to device"][-2:]
    assert all(call.pinned for call in copies)


def test_frames_of_clips_go_the_same_way(tmp_path, monkeypatch):
    clipkit = pytest.importorskip("clipkit")
    clipkit.clips_in(tmp_path / "in", [5])
    encode(tmp_path / "in", tmp_path / "cpu", LINEAR, batch_size=4)
    with fake_gpu(monkeypatch) as gpu:
        encode(tmp_path / "in", tmp_path / "gpu", LINEAR, **GPU)
    assert {call.what for call in gpu.calls if call.thread != "main"} == {"wait"}
    order = [call.what for call in gpu.calls if call.thread == "main"]
    assert order[order.index("mark") - 1] == "pin"
    cpu, there = latents_of(tmp_path / "cpu"), latents_of(tmp_path / "gpu")
    assert all(torch.equal(cpu[name], there[name]) for name in cpu)


def test_each_batch_is_copied_back_behind_its_own_work(folder, tmp_path, monkeypatch):
    """On a stream of its own, into pinned memory that later batches use again."""
    with fake_gpu(monkeypatch) as gpu:
        encode(folder, tmp_path / "store", LINEAR, **GPU | {"batch_size": 1})
    calls = [call for call in gpu.calls if call.thread == "main"]
    first = next(i for i, call in enumerate(calls) if call.what == "mark")
    calls = calls[first:]
    order = [call.what for call in calls]
    copies = [call for call in calls if call.what == "to host"]
    assert all(call.pinned and call.stream is not None for call in copies)
    assert len({call.stream for call in copies}) == 1 and len(copies) % 7 == 0
    each = len(copies) // 7
    begun = [i for i, what in enumerate(order) if what == "wait for event"]
    assert len(begun) == 7
    for i in begun:
        # The work of a batch is over with its second mark; what comes next may need a slab.
        before = [what for what in order[:i] if what not in ("pin", "empty")]
        assert before[-2:] == ["mark", "event"]
        assert order[i + 1 : i + each + 2] == ["to host"] * each + ["event"]
    slabs = order.count("pin") - 6  # the pixels of each batch but the first
    assert slabs <= BATCHES_BEHIND + 1


def test_a_store_in_bfloat16_tells_a_device_without_it_what_to_do(folder, tmp_path, monkeypatch):
    """Nobody who left --dtype out is told to leave it out."""
    store = tmp_path / "store"
    encode(folder, store, LINEAR, dtype="bf16", limit=4)
    with fake_gpu(monkeypatch) as gpu:
        gpu.capability = (7, 5)
        with pytest.raises(
            UsageError, match=r"kept from the existing store.*another -o if the store exists"
        ):
            encode(folder, store, LINEAR, **GPU | {"dtype": "auto"})
