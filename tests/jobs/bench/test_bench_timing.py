"""Turns, budgets, paired speedups and quartiles; and the compiled networks."""

from __future__ import annotations

import itertools
import shutil
from collections import Counter
from dataclasses import replace

import pytest
import torch

from latentcli.core.errors import LatentCliError
from latentcli.jobs.bench.cases import Case
from latentcli.jobs.bench.config import BenchJob
from latentcli.jobs.bench.job import run_bench
from latentcli.jobs.bench.models import ShortOfMemory, TimedModel, attempt, timed_model
from latentcli.jobs.bench.timing import (
    Timing,
    enough,
    in_turn,
    measure_case,
    quartiles,
    row,
    versus,
)
from latentcli.jobs.inference.engine import load_engine
from latentcli.models.fast.products import Product

SMALL = {"resolution": ("32",), "batch": (1,), "device": "cpu"}


def test_the_order_of_the_models_changes():
    models = "abcd"
    turns = [in_turn(models, turn) for turn in range(8)]
    assert all(sorted(order) == list(models) for order in turns)
    for place in range(4):
        assert set(Counter(order[place] for order in turns).values()) == {2}
    follows = {pair for order in turns for pair in itertools.pairwise(order)}
    assert {("a", "b"), ("b", "a"), ("d", "a"), ("a", "d")} <= follows


def test_a_speedup_is_paired():
    """A machine that becomes three times slower half way moves times and not the speedup."""
    baseline = Timing([4.0, 4.0, 12.0, 12.0, 12.0], 100.0)
    model = Timing([1.0, 1.0, 3.0, 3.0, 1.0], 25.0)
    found = versus(model, baseline)
    assert (found["speedup"], found["speedup_p25"], found["speedup_p75"]) == (4.0, 4.0, 4.0)
    assert found["memory_reduction"] == 0.75
    assert set(versus(model, None).values()) == {None}
    told = row("m", Case("decode", (64, 32), 2), model, baseline)
    assert (told["ms_per_batch"], told["images_per_second"]) == (1000.0, 2.0)
    assert (told["ms_p25"], told["ms_p75"], told["ms_max"]) == (1000.0, 3000.0, 3000.0)
    assert (told["resolution"], told["ms_per_image"]) == ("64x32", 500.0)


def test_quartiles():
    assert quartiles([3.0]) == (3.0, 3.0)
    assert quartiles([1.0, 2.0, 3.0, 4.0, 5.0]) == (2.0, 4.0)


def test_a_budget_leaves_three_repeats(model):
    assert not enough(100, 1e9, None)
    assert not enough(2, 1.0, 0.5)
    assert enough(3, 1.0, 0.5)
    assert not enough(3, 0.1, 0.5)
    found = run_bench(BenchJob(models=(model,), op="encode", repeats=50, seconds=0.0, **SMALL))
    assert [r["repeats"] for r in found["rows"]] == [3]
    assert (found["repeats"], found["seconds"]) == (50, 0.0)


def test_short_memory_is_told_with_model_and_case():
    def out_of_memory():
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 1 bytes")

    who = TimedModel("m", None, None, None, False)
    with pytest.raises(LatentCliError, match="m ran out of memory in encode of 8x4, batch 2"):
        attempt(who, Case("encode", (8, 4), 2), out_of_memory)


def test_what_may_be_short_memory_is_told_with_its_own_words():
    def no_way():
        raise RuntimeError("GET was unable to find an engine to execute this computation")

    who = TimedModel("m", None, None, None, False)
    with pytest.raises(ShortOfMemory, match=r"for encode of 8x4, batch 2, .*: GET .* --batch"):
        attempt(who, Case("encode", (8, 4), 2), no_way)
    with pytest.raises(RuntimeError, match=r"^GET was unable"):
        attempt(who, Case("encode", (8, 4), 1), no_way)


def test_a_failed_compile_is_told_in_words():
    def fails():
        raise RuntimeError("backend='inductor' raised:\nInvalidCxxCompiler: none found\nmore")

    case = Case("encode", (8, 4), 2)
    with pytest.raises(LatentCliError, match=r"torch.compile failed for m in .*none found\. Leave"):
        attempt(TimedModel("m", None, None, None, True), case, fails)
    with pytest.raises(RuntimeError, match="inductor"):
        attempt(TimedModel("m", None, None, None, False), case, fails)


def test_the_compiler_is_given_weights_that_it_can_trace(model):
    """It fails on those that are laid out for oneDNN, which a CPU's products in bfloat16 have."""
    engine = load_engine(model, device="cpu", dtype="bf16")
    here = Product(torch.zeros(8, 8), None, torch.bfloat16).weight.layout
    for compiled, layouts in ((False, {here}), (True, {torch.strided})):
        timed_model("m", engine, compiled)
        products = [each for each in engine.model.modules() if isinstance(each, Product)]
        assert {product.weight.layout for product in products} == layouts


@pytest.mark.slow
@pytest.mark.timeout(1200)  # 15 s of a processor, of which a machine may give a small part
def test_compiled():
    import torch._dynamo

    if not (shutil.which("g++") or shutil.which("clang++")):
        pytest.skip("torch.compile needs a C++ compiler on a CPU")
    torch._dynamo.utils.counters.clear()
    found = run_bench(BenchJob(models=("linear16",), op="encode", repeats=1, compile="on", **SMALL))
    assert found["compiled"] is True
    assert found["warmup"] == 2
    assert all(check["relative_rms"] < 1e-4 for check in found["checks"])
    # The encoder at the size of the check, and once more at the case's.
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 2


def test_what_one_model_has_no_memory_for_costs_the_others_nothing():
    engine = load_engine("linear16", device="cpu")
    plain = timed_model("linear16", engine, False)
    hungry = replace(plain, name="hungry", encode=lambda images: torch.empty(2**50))
    job = BenchJob(models=("linear16",), baseline="hungry", repeats=2, warmup=1)
    for models in ([plain, hungry], [hungry, plain]):
        done, short = measure_case(Case("encode", (32, 32), 1), models, job)
        assert [row["model"] for row in done] == ["linear16"] and done[0]["speedup"] is None
        assert short[0]["model"] == "hungry" and "ran out of memory" in short[0]["reason"]
    assert measure_case(Case("encode", (32, 32), 1), [hungry], job)[0] == []


def test_compiled_code_is_held_against_eager_at_the_size_that_is_timed():
    """Right at the size of the check before, wrong at the one that counts."""
    engine = load_engine("linear16", device="cpu")
    plain = timed_model("linear16", engine, False)

    def wrong(images: torch.Tensor) -> torch.Tensor:
        return plain.encode(images) * (1.01 if images.shape[-1] == 96 else 1.0)

    timed = replace(plain, encode=wrong, compiled=True)
    job = BenchJob(models=("linear16",), repeats=1, warmup=1, compile="on")
    assert measure_case(Case("encode", (64, 64), 2), [timed], job)[0]
    with pytest.raises(LatentCliError, match=r"encode of 96x96.*not that of the eager network"):
        measure_case(Case("encode", (96, 96), 2), [timed], job)


def test_threads_are_set_for_the_run_alone(bundled):
    before = torch.get_num_threads()
    found = run_bench(BenchJob(models=(bundled,), op="encode", repeats=1, threads=2, **SMALL))
    assert found["threads"] == 2 and torch.get_num_threads() == before
