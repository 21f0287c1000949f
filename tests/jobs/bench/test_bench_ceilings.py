"""The machine's own rates, and the shares of them, turn by turn."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from harness.fake_gpu import fake_gpu

from latentcli.jobs.bench import ceilings
from latentcli.jobs.bench.cases import Case
from latentcli.jobs.bench.ceilings import (
    SHARES,
    Ceiling,
    ceilings_document,
    ceilings_of,
    measure_all,
    shares,
)
from latentcli.jobs.bench.config import BenchJob
from latentcli.jobs.bench.job import run_bench
from latentcli.jobs.bench.models import timed_model
from latentcli.jobs.bench.operations import Operator
from latentcli.jobs.bench.timing import measure_case
from latentcli.jobs.inference.accelerator import Cpu, Cuda
from latentcli.jobs.inference.engine import load_engine

GIGA = 10**9


@pytest.fixture
def small(monkeypatch):
    """Ceilings that are measured in a moment."""
    monkeypatch.setattr(ceilings, "COPY_BYTES", 2**22)
    monkeypatch.setattr(ceilings, "FIRST_SIDE", 64)
    monkeypatch.setattr(ceilings, "LEAST_SECONDS", 0.001)


def test_a_share_is_of_the_same_turn():
    """The machine becomes four times slower half way: so do the calls, and no share changes."""
    rates = [100.0 * GIGA, 100.0 * GIGA, 25.0 * GIGA]
    measured = [
        Ceiling("bf16", 1, int, 1, [1.0, *rates]),
        Ceiling("copy", 1, int, 1, [1.0, *rates]),
    ]
    done = [Operator("mm", 40 * GIGA, 10 * GIGA), Operator("add", 0, 10 * GIGA)]
    found = shares(done, [1.0, 1.0, 4.0], measured, "bf16")
    assert found == dict(zip(SHARES, (40.0, 20.0, 2, 0.4, 0.2), strict=True))

    uneven = [100.0 * GIGA, 25.0 * GIGA, 100.0 * GIGA]
    assert ceilings.share(40 * GIGA, [1.0, 2.0, 4.0], uneven) == 0.4  # of the medians it were 0.2


def test_rates_are_those_of_all_threads(small, monkeypatch):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        found = ceilings_of(Cpu(), "fp32")
        measure_all(found, Cpu())
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    one = ceilings.product_of("fp32", 64, Cpu())
    two_threads = next(each for each in found if each.name == "fp32")
    assert one.work == before * 2 * 64**3
    assert two_threads.work % (2 * 2 * 64**3) == 0  # two products of this side or a larger one
    told = ceilings_document(found)
    assert told["copy_gbyte_per_second"] > 0 and told["gflop_per_second"]["fp32"] > 0


def test_a_gpu_multiplies_one_pair_of_matrices(small, monkeypatch):
    monkeypatch.setattr(Cuda, "matrix_side", 64)
    with fake_gpu(monkeypatch) as gpu:
        cuda = Cuda(0)
        found = ceilings.product_ceiling("bf16", cuda)
        found.calls = 3
        del gpu.calls[:]
        found.measure(cuda)
        what = [call.what for call in gpu.calls]
    assert found.work == 2 * 64**3
    assert what[:2] == ["synchronize", "mark"] and what[-2:] == ["mark", "wait"]
    assert what.count("linear") == 3 and "to host" not in what


def test_a_network_that_memory_is_too_short_to_count_keeps_its_times(small):
    engine = load_engine("linear16", device="cpu")
    timed = timed_model("linear16", engine, False)
    engine.model.encode = lambda images: torch.empty(2**50)
    job = BenchJob(models=("linear16",), repeats=2, warmup=1)
    measured = ceilings_of(engine.accelerator, "fp32")
    (row,), short = measure_case(Case("encode", (32, 32), 1), [timed], job, measured)
    assert short == [] and row["ms_per_batch"] > 0
    assert [row[name] for name in SHARES] == [None] * 5


def test_bench_tells_the_shares(small, model):
    job = BenchJob(models=(model,), device="cpu", resolution=("64",), batch=(2,), repeats=3)
    without = run_bench(job)
    assert without["ceilings"] is None
    assert [row[name] for row in without["rows"] for name in SHARES] == [None] * 10
    found = run_bench(replace(job, roofline=True))
    assert set(found["ceilings"]["gflop_per_second"]) >= {"fp32"}
    for row in found["rows"]:
        assert 0 < row["matrix_share"] <= 1.5
        assert row["gflop"] > 0 and row["gbyte"] > 0 and row["operators"] > 10
        assert row["copy_share"] > 0
