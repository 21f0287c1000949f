"""Whether a processor multiplies in bfloat16: the instruction, then a product that is timed."""

from __future__ import annotations

import statistics
import subprocess
import sys

import pytest
import torch
from jobkit import environment

from latentcli.jobs.inference import cpu_bf16
from latentcli.jobs.inference.accelerator import Cpu, Cuda
from latentcli.jobs.inference.cpu_bf16 import (
    AT_LEAST,
    INSTRUCTIONS,
    bf16_speedup,
    has_instruction,
    multiplies_bf16,
)


@pytest.fixture
def asked_anew():
    """What was found out of this processor is forgotten, before and after."""
    multiplies_bf16.cache_clear()
    yield
    multiplies_bf16.cache_clear()


def test_torch_knows_the_instructions():
    """They are private to it: renamed, every processor would be one without them."""
    assert all(isinstance(getattr(torch.cpu, name)(), bool) for name in INSTRUCTIONS)


@pytest.mark.parametrize(("allowed", "has"), [("AVX512", True), ("AVX2", False)])
def test_torch_may_be_kept_to_older_instructions(monkeypatch, allowed, has):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: allowed)
    for name in INSTRUCTIONS:
        monkeypatch.setattr(torch.cpu, name, lambda: True)
    assert has_instruction() == has


def test_without_an_instruction_nothing_is_timed(asked_anew, monkeypatch):
    for name in INSTRUCTIONS:
        monkeypatch.setattr(torch.cpu, name, lambda: False)
    monkeypatch.setattr(cpu_bf16, "bf16_speedup", lambda: pytest.fail("It was timed."))
    assert not multiplies_bf16() and Cpu.auto_dtype() == "fp32"


def test_a_torch_without_the_functions_has_no_instruction(monkeypatch):
    for name in INSTRUCTIONS:
        monkeypatch.delattr(torch.cpu, name)
    assert not has_instruction()


@pytest.mark.parametrize(("speedup", "dtype"), [(0.2, "fp32"), (1.2, "fp32"), (1.9, "bf16")])
@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_the_product_decides_once(asked_anew, monkeypatch, name, speedup, dtype):
    times = []
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr(torch.cpu, name, lambda: True)
    monkeypatch.setattr(cpu_bf16, "bf16_speedup", lambda: times.append(1) or speedup)
    assert [Cpu.auto_dtype() for _ in range(3)] == [dtype] * 3
    assert len(times) == 1
    assert Cuda.auto_dtype() == "bf16"


SEVERAL = """
from latentcli.jobs.inference.cpu_bf16 import bf16_speedup, has_instruction
print(has_instruction(), *(bf16_speedup() for _ in range(5)))
"""


def test_the_product_is_far_from_the_limit():
    """Nothing that is measured may decide by chance; a processor without the instruction is slower.

    Tests keep torch to older instructions, so this is asked of a process that may use all of them.
    """
    free = {name: value for name, value in environment().items() if name != "ATEN_CPU_CAPABILITY"}
    run = subprocess.run(
        [sys.executable, "-c", SEVERAL], env=free, capture_output=True, text=True, check=True
    )
    has, *speedups = run.stdout.split()
    speedup = statistics.median(map(float, speedups))
    assert speedup < AT_LEAST / 1.25 or (has == "True" and speedup > AT_LEAST * 1.25)


def test_threads_are_as_before():
    before = torch.get_num_threads()
    assert bf16_speedup() > 0
    assert torch.get_num_threads() == before
