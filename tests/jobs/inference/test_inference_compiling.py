"""What torch's compiler needs and lacks, which sizes it is given, and what auto goes by."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

import pytest
import torch
from compilekit import need_compiler

from latentcli.core.errors import UsageError
from latentcli.images.buckets import make_buckets
from latentcli.images.preprocess import PreprocessSpec
from latentcli.jobs.inference.accelerator import Cpu, Cuda
from latentcli.jobs.inference.compiling import (
    GAINING,
    MOST_SIZES,
    check_compiler,
    check_sizes,
    gains,
    known_sizes,
    missing,
    pixels_of,
)
from latentcli.jobs.inference.likeness import unlike
from latentcli.models.kernels.ops import has_triton

BUCKETS = make_buckets("area", 64, 16, 16)


@pytest.fixture
def programs(monkeypatch, tmp_path):
    """A folder that alone has programs: none as yet."""
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("CC", "CXX"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture(params=[True, False])
def triton(request, monkeypatch):
    """Whether there is Triton."""
    has_triton.cache_clear()
    monkeypatch.setitem(sys.modules, "triton", None)
    if request.param:
        monkeypatch.setitem(sys.modules, "triton", torch)  # some module
    yield request.param
    has_triton.cache_clear()


def program(folder: Path, name: str) -> Path:
    path = folder / name
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="names of compilers")
def test_a_cpu_needs_a_compiler_of_cpp(programs, monkeypatch):
    assert "a C++ compiler, and there is no g++: install one" in (missing(Cpu()) or "")
    monkeypatch.setenv("CXX", "my-g++")
    assert "there is no my-g++" in (missing(Cpu()) or "")
    program(programs, "my-g++")
    assert missing(Cpu()) is None
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(programs))
    assert (missing(Cpu()) or "").startswith("Python.h")


@pytest.mark.skipif(sys.platform != "linux", reason="names of compilers")
def test_a_gpu_needs_triton_and_a_compiler_of_c(programs, triton):
    program(programs, "g++")
    assert (missing(Cuda(0)) or "").startswith("a C compiler" if triton else "Triton, which is not")
    program(programs, "clang")
    assert (missing(Cuda(0)) is None) == triton


def test_what_is_missing_is_said_with_what_to_do(programs):
    for compile in ("auto", "off"):
        check_compiler(compile, Cpu(), max_memory=1)
    with pytest.raises(
        UsageError, match=r"is on \(given, or kept .*; or leave out --compile \(and"
    ):
        check_compiler("on", Cpu())


def test_sizes_that_are_known():
    assert known_sizes(PreprocessSpec((64, 32), 16)) == ((64, 32),)
    assert known_sizes(PreprocessSpec(None, 16)) == ()
    table = known_sizes(PreprocessSpec(None, 16, buckets=BUCKETS))
    assert (64, 64) in table and len(table) > 2
    own = make_buckets("simpletuner", 1024, 64, 16)
    assert known_sizes(PreprocessSpec(None, 16, buckets=own)) == ()


def test_sizes_that_are_compiled():
    sizes = [(16 * (1 + i), 16) for i in range(MOST_SIZES)]
    check_sizes(sizes, "Give --size")
    with pytest.raises(
        UsageError, match=rf"{MOST_SIZES + 1} picture sizes .*; at most {MOST_SIZES} are"
    ):
        check_sizes([*sizes, (16, 32)], "Give --size")
    with pytest.raises(UsageError, match=r"Give --size, or leave out --compile"):
        check_sizes([], "Give --size")


def test_pixels_are_the_least_that_there_can_be():
    assert pixels_of([(64, 32), (16, 16)], 10) == 2560
    assert pixels_of([], 10) is None and pixels_of([(64, 32)], None) is None


def test_auto_is_for_what_was_measured_to_gain():
    need_compiler()
    ((kind, family), least) = next(iter(GAINING.items()))
    assert kind == Cpu.name and least >= 2**35
    assert gains(Cpu(), family, least) and not gains(Cpu(), family, least - 1)
    assert not gains(Cpu(), family, None) and not gains(Cpu(), "fcdm", 2**60)
    assert not gains(Cuda(0), family, 2**60)


def test_rounding_is_told_from_another_output():
    right = torch.linspace(-1, 1, 100)
    assert unlike(right * 1.00001, right, "fp32") is None
    assert unlike(right * 1.01, right, "bf16") is None
    assert "relative RMS 0.01 (0.0001 allowed)" in (unlike(right * 1.01, right, "fp32") or "")
