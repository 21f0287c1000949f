"""Batches that are copied off a GPU that torch is made to have, one behind the other."""

from __future__ import annotations

from collections import deque

import pytest
import torch
from harness.fake_gpu import OnDevice, fake_gpu
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from latentcli.jobs.inference.accelerator import Cpu, Cuda
from latentcli.jobs.inference.copy_back import CopyBack

GPU = torch.device("cuda:0")
DTYPES = (torch.bfloat16, torch.int8, torch.float64)


def batch(number: int, count: int) -> dict[str, Tensor]:
    """Tensors whose places in a slab differ from batch to batch."""
    chance = torch.Generator().manual_seed(number)
    values = [torch.randn(count, 3, i + 1, generator=chance).mul(50) for i in range(3)]
    return {str(i): values[i].to(dtype) for i, dtype in enumerate(DTYPES)}


def on_device(parts: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: OnDevice(part, GPU) for name, part in parts.items()}


@settings(max_examples=15, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=4, max_size=6),
    behind=st.integers(1, 3),
    late=st.booleans(),
)
def test_what_arrives_is_what_was_sent(sizes, behind, late):
    """Whether copies are done at once or as late as may be; and a slab has one batch at a time."""
    batches = [batch(number, count) for number, count in enumerate(sizes)]
    with pytest.MonkeyPatch.context() as patch, fake_gpu(patch) as gpu:
        gpu.late = late
        copies, waiting, got = CopyBack(Cuda()), deque(), []
        for sent in batches:
            while len(waiting) > behind:
                got.append(waiting.popleft()())
            waiting.append(copies.begin(on_device(sent)))
        got += [finish() for finish in waiting]
    for sent, parts in zip(batches, got, strict=True):
        assert parts.keys() == sent.keys()
        assert all(torch.equal(parts[name], sent[name]) for name in sent)
        assert all(parts[name].dtype == sent[name].dtype for name in sent)


def test_slabs_are_used_again(monkeypatch):
    with fake_gpu(monkeypatch) as gpu:
        copies, waiting = CopyBack(Cuda()), deque()
        for number in range(12):
            waiting.append(copies.begin(on_device(batch(number, 4))))
            if len(waiting) == 3:
                waiting.popleft()()
    assert gpu.count("pin") == 3


def test_the_copy_waits_for_its_batch_and_the_host_for_the_copy(monkeypatch):
    with fake_gpu(monkeypatch) as gpu:
        finish = CopyBack(Cuda()).begin(on_device(batch(0, 4)))
        before = len(gpu.calls)
        finish()
    begun = [call for call in gpu.calls[:before] if call.what not in ("pin", "empty")]
    assert [call.what for call in begun] == ["event", "wait for event", *["to host"] * 3, "event"]
    sent = [call for call in begun if call.what == "to host"]
    assert all(call.pinned and call.stream is not None for call in sent)
    assert len({call.stream for call in sent}) == 1
    assert [call.what for call in gpu.calls[before:]] == ["wait"]


def test_without_pinned_memory_it_goes_on(monkeypatch):
    def refuse(call):
        if call.what == "pin":
            raise RuntimeError("CUDA error: out of memory")

    with fake_gpu(monkeypatch) as gpu:
        gpu.allow = refuse
        parts = CopyBack(Cuda()).begin(on_device(batch(0, 2)))()
    assert all(torch.equal(parts[name], part) for name, part in batch(0, 2).items())


def test_on_a_cpu_nothing_is_copied():
    sent = batch(0, 2)
    parts = CopyBack(Cpu()).begin(sent)()
    assert all(parts[name] is sent[name] for name in sent)
