"""Outputs that are not those of eager float32 are refused before anything is timed."""

from __future__ import annotations

import math
import re

import pytest
import torch
from jobkit import changed_model

from latentcli.core.errors import LatentCliError
from latentcli.jobs.bench.check_outputs import check_outputs, fault
from latentcli.jobs.bench.config import BenchJob
from latentcli.jobs.bench.job import run_bench
from latentcli.jobs.bench.models import TimedModel, bench_engine, timed_model
from latentcli.jobs.inference.likeness import TOLERANCES


def engine_of(name: str, dtype: str = "fp32"):
    return bench_engine(BenchJob(models=(name,), device="cpu"), name, dtype)


def bench(name: str, **options: object) -> dict:
    settings = {"resolution": ("32",), "batch": (1,), "repeats": 1, "warmup": 0}
    return run_bench(BenchJob(models=(name,), device="cpu", **settings | options))


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_figures_of_a_good_model(model, dtype):
    engine, reference = engine_of(model, dtype), engine_of(model)
    found = check_outputs(engine, reference, timed_model(model, engine, False))
    assert [row["op"] for row in found] == ["encode", "decode"]
    for row in found:
        assert row["ok"] is True
        assert row["tolerance"] == TOLERANCES[dtype].rms
        if dtype == "bf16":
            assert 1e-4 < row["relative_rms"] < 0.1  # it is not the reference itself
        else:
            assert row["relative_rms"] < 1e-5
    assert {"checks"} <= bench(model, dtype=dtype).keys()


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda out: out * 1.5, "relative RMS 0.5 (0.0001 allowed)"),
        (lambda out: out.index_fill(-1, torch.tensor([0]), math.nan), "NaN or infinite"),
        (lambda out: out[:1].expand_as(out), "the same for different inputs"),
        (lambda out: out * 0 + 3, "is 3 everywhere"),
        (lambda out: out[..., :-1], "its output has shape"),
        (lambda out: out + torch.randn_like(out), "is not that of eager float32"),
    ],
)
@pytest.mark.parametrize("op", ["encode", "decode"])
def test_a_wrong_output_is_refused(model, op, spoil, told):
    engine = engine_of(model)
    good = {"encode": engine.model.encode, "decode": engine.model.decode}
    wrong = {**good, op: lambda *args, **settings: spoil(good[op](*args, **settings))}
    timed = TimedModel(model, engine, wrong["encode"], wrong["decode"], False)
    with pytest.raises(LatentCliError, match=re.escape(told)) as caught:
        check_outputs(engine, engine, timed)
    assert str(caught.value).startswith(f"{model}, {op} in fp32: ")
    assert "not timed" in str(caught.value)


@pytest.mark.parametrize(
    ("value", "told"), [(math.nan, "its eager float32 output has values"), (0.0, "everywhere")]
)
def test_weights_that_give_nothing_do_not_pass(model, tmp_path, value, told):
    def spoil(state: dict[str, torch.Tensor]) -> None:
        for name, tensor in state.items():
            if name.startswith("encoder."):
                tensor.fill_(value)

    broken = changed_model(model, tmp_path / "broken", spoil)
    with pytest.raises(LatentCliError, match=told):
        bench(broken)


def test_fault():
    assert fault(torch.rand(2, 3)) is None
    assert fault(torch.rand(1, 3)) is None
    assert "everywhere" in fault(torch.zeros(2, 3))
    assert "infinite" in fault(torch.tensor([[1.0, math.inf], [2.0, 3.0]]))
