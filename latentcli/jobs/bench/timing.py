"""Times models side by side on a case, and builds the document's rows of it.

The models take turns, and the order changes from turn to turn, so that what slows the machine down
for a while slows all of them. A quick model is called several times in its turn, as what disturbs a
machine disturbs a short call by chance and a long one for certain. A speedup is the median over the
turns of the baseline's time over the model's in the same turn.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from latentcli.core.errors import LatentCliError
from latentcli.jobs.bench.cases import Case
from latentcli.jobs.bench.ceilings import SHARES, Ceiling, measure_all, shares
from latentcli.jobs.bench.check_outputs import fault
from latentcli.jobs.bench.config import BenchJob
from latentcli.jobs.bench.models import ShortOfMemory, TimedModel, Work, attempt, timed_model, work
from latentcli.jobs.bench.operations import count_operators
from latentcli.jobs.inference.accelerator import Accelerator, DeviceTimer
from latentcli.jobs.inference.likeness import unlike
from latentcli.jobs.inference.memory import own_bytes, peak_bytes
from latentcli.jobs.inference.out_of_memory import empty_cache

Model = TypeVar("Model")

LEAST_REPEATS = 3
"""Repeats that a budget of seconds never cuts."""

MOST_CALLS = 8
"""Calls of a quick model in one turn."""


@dataclass(slots=True)
class Timing:
    """Seconds of a call in each repeat, and the most memory at one of them."""

    seconds: list[float] = field(default_factory=list)
    peak_mib: float = 0.0
    calls: int = 1
    """In each repeat, of which the mean counts."""


def untimed_calls(job: BenchJob) -> int:
    """Calls before the clock runs: one shows memory and output, and a compiler takes one more."""
    return max(job.warmup, 2 if job.compiles else 1)


@dataclass(slots=True)
class Ready:
    """A model, its work on a case, and what was measured of it so far."""

    model: TimedModel
    work: Work
    timing: Timing


@torch.inference_mode()
def measure_case(
    case: Case, able: Sequence[TimedModel], job: BenchJob, ceilings: Sequence[Ceiling] = ()
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """(a row per model that could run the case, why each other one could not).

    With `ceilings` each is measured in every turn too, and the rows tell the models' shares.
    """
    if job.compiles:
        torch.compiler.reset()  # each case is of other shapes, and old code would fill memory
    ready, short = warmed_up(case, able, job)
    share([once(each) for each in ready], [each.timing for each in ready])
    start = time.perf_counter()
    for turn in range(job.repeats):
        if enough(turn, time.perf_counter() - start, job.seconds):
            break
        for each in in_turn(ready, turn):
            calls = [once(each) for _ in range(each.timing.calls)]
            each.timing.seconds.append(statistics.fmean(calls))
        if ready:
            measure_all(ceilings, ready[0].model.engine.accelerator)
    against = next((each.timing for each in ready if each.model.name == job.baseline), None)
    rows = [row(each.model.name, case, each.timing, against) for each in ready]
    reached = [shares_of(each, case, job.steps, ceilings) for each in ready]
    return [told | of_it for told, of_it in zip(rows, reached, strict=True)], short


def shares_of(
    each: Ready, case: Case, steps: int, ceilings: Sequence[Ceiling]
) -> dict[str, float | None]:
    """What the eager network asks of the machine, and the model's shares of the ceilings.

    None of each without ceilings, and where memory is too short for the eager network.
    """
    if not ceilings:
        return dict.fromkeys(SHARES)
    engine = each.model.engine
    eager = timed_model(each.model.name, engine, compiled=False)
    try:
        call = work(eager, case, steps).call
        operators = attempt(eager, case, lambda: count_operators(call))
    except ShortOfMemory:
        empty_cache()
        return dict.fromkeys(SHARES)
    return shares(operators, each.timing.seconds, ceilings, engine.dtype)


def warmed_up(
    case: Case, able: Sequence[TimedModel], job: BenchJob
) -> tuple[list[Ready], list[dict[str, str]]]:
    """(models that ran the case and gave the right output, those that memory is too short for)."""
    ready, short, calls = [], [], untimed_calls(job)
    for model in able:
        try:
            each = Ready(model, work(model, case, job.steps), Timing())
            for _ in range(calls - 1):
                attempt(model, case, each.work.call)
            refuse_wrong(model, case, last_warm_up(each, case), job.steps)
        except ShortOfMemory as error:
            short.append({"model": model.name, "op": case.op, "reason": str(error).rstrip(".")})
            empty_cache()
            continue
        ready.append(each)
    return ready, short


def once(each: Ready) -> float:
    """Seconds of one call, whose memory is noted where a GPU tells it."""
    accelerator = each.model.engine.accelerator
    seconds, added = timed(each.work.call, accelerator)
    if accelerator.gpu:
        own = own_bytes(each.model.engine.model, each.work.inputs)
        each.timing.peak_mib = max(each.timing.peak_mib, added + own / 2**20)
    return seconds


def share(alone: Sequence[float], timings: Sequence[Timing]) -> None:
    """Gives each model as many calls a turn as the slowest one's time has room for."""
    for seconds, timing in zip(alone, timings, strict=True):
        timing.calls = max(1, min(MOST_CALLS, round(max(alone) / max(seconds, 1e-9))))


def enough(turns: int, spent: float, budget: float | None) -> bool:
    """Whether a budget of seconds ends the repeats."""
    return budget is not None and turns >= LEAST_REPEATS and spent >= budget


def in_turn(models: Sequence[Model], turn: int) -> list[Model]:
    """The models in this turn's order: each is first in turn, and follows each neighbour."""
    if not models:
        return []
    shift = turn // 2 % len(models)
    order = [*models[shift:], *models[:shift]]
    return order[::-1] if turn % 2 else order


def last_warm_up(each: Ready, case: Case) -> Tensor:
    """The output of the last untimed call, which on a CPU shows the memory."""
    model, job = each.model, each.work
    if model.engine.accelerator.gpu:
        return attempt(model, case, job.call)
    output, peak = attempt(model, case, lambda: peak_bytes(job.call))
    each.timing.peak_mib = (peak + own_bytes(model.engine.model, job.inputs)) / 2**20
    return output


def refuse_wrong(model: TimedModel, case: Case, output: Tensor, steps: int) -> None:
    """LatentCliError for a broken output at the very size that is timed.

    A network may fail at one size and not at another, and compiled code is made for each anew: it
    is held against the eager network of its own dtype.
    """
    wrong = fault(output)
    if not wrong and model.compiled:
        eager = timed_model(model.name, model.engine, compiled=False)
        expected = attempt(eager, case, work(eager, case, steps).call)
        wrong = unlike(output, expected, model.engine.dtype)
    if wrong:
        raise LatentCliError(f"{model.name}, {case}: its output {wrong}, so it is not timed.")


def timed(call: Callable[[], Tensor], accelerator: Accelerator) -> tuple[float, float]:
    """(seconds, MiB that the call added where a GPU tells it) of one call."""
    added = accelerator.watch_memory()
    accelerator.synchronize()
    with DeviceTimer(accelerator) as timer:
        call()
    return timer.seconds(), added() / 2**20


def row(name: str, case: Case, timing: Timing, baseline: Timing | None) -> dict[str, Any]:
    """One row of the document: medians over the repeats, their quartiles and their range."""
    median = statistics.median(timing.seconds)
    low, high = quartiles(timing.seconds)
    return {
        "model": name,
        "op": case.op,
        "resolution": case.resolution,
        "batch": case.batch,
        "ms_per_batch": round(1000 * median, 3),
        "ms_p25": round(1000 * low, 3),
        "ms_p75": round(1000 * high, 3),
        "ms_min": round(1000 * min(timing.seconds), 3),
        "ms_max": round(1000 * max(timing.seconds), 3),
        "ms_per_image": round(1000 * median / case.batch, 3),
        "images_per_second": round(case.batch / median, 2),
        "repeats": len(timing.seconds),
        "calls": timing.calls,
        "peak_memory_mib": round(timing.peak_mib, 1),
        **versus(timing, baseline),
    }


def versus(timing: Timing, baseline: Timing | None) -> dict[str, float | None]:
    """Speedup (times, turn by turn) with its quartiles, and memory reduction (a fraction)."""
    keys = ("speedup", "speedup_p25", "speedup_p75", "memory_reduction")
    if baseline is None:
        return dict.fromkeys(keys)
    ratios = [b / own for b, own in zip(baseline.seconds, timing.seconds, strict=True)]
    low, high = quartiles(ratios)
    saved = 1 - timing.peak_mib / baseline.peak_mib
    figures = (round(value, 3) for value in (statistics.median(ratios), low, high))
    return dict(zip(keys, (*figures, round(saved, 4)), strict=True))


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """(25th, 75th percentile); of one value, that value twice."""
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high
