"""Checks a model's output as it is timed against its own eager float32 output."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from latentcli.core.errors import LatentCliError
from latentcli.jobs.bench.cases import Case
from latentcli.jobs.bench.models import TimedModel, attempt, timed_model, work
from latentcli.jobs.inference.engine import Engine
from latentcli.jobs.inference.likeness import TOLERANCES, distances

BATCH, SIDE = 2, 64
"""Pictures of the check, and their side, rounded up to what the model takes."""

FINITE_DIFFERENCE = 1e-6
"""Two pictures' outputs must differ by this part of their size: noise inputs do by about 1."""


@torch.inference_mode()
def check_outputs(
    engine: Engine, reference: Engine, timed: TimedModel, ops: Iterable[str] = ("encode", "decode")
) -> list[dict[str, Any]]:
    """One row per op of `ops` that the model has; LatentCliError names an op and its figures.

    The reference is the eager float32 network of the same weights, as it is published, given the
    same pictures one at a time.
    """
    model = engine.model
    divisor = model.spec.size_divisor
    side = math.ceil(SIDE / divisor) * divisor
    rows = []
    for op in ops:
        if model.can_encode if op == "encode" else model.can_decode:
            case = Case(op, (side, side), BATCH)
            eager = timed_model(timed.name, reference, compiled=False)
            rows.append(check(timed, case, one_by_one(eager, case), engine.dtype))
    return rows


def one_by_one(eager: TimedModel, case: Case) -> Tensor:
    """The reference, float32 [N, ...]: each picture of the case alone."""
    inputs = work(eager, case, steps=1).inputs
    single = replace(case, batch=1)
    alone = work(eager, single, steps=1)
    parts = []
    for index in range(case.batch):
        for place, source in zip(alone.inputs, inputs, strict=True):
            place.copy_(source[index : index + 1])
        parts.append(attempt(eager, case, alone.call).float().cpu())
    return torch.cat(parts)


def check(timed: TimedModel, case: Case, expected: Tensor, dtype: str) -> dict[str, Any]:
    """The row of one op; LatentCliError where the output is not what eager float32 gives."""
    found = attempt(timed, case, work(timed, case, steps=1).call).float().cpu()
    allowed = TOLERANCES[dtype]
    subject = f"{timed.name}, {case.op} in {dtype}{', compiled' if timed.compiled else ''}"
    for whose, output in (("its eager float32 output", expected), ("its output", found)):
        wrong = fault(output)
        if wrong:
            raise LatentCliError(f"{subject}: {whose} {wrong}, so it is not timed.")
    if found.shape != expected.shape:
        raise LatentCliError(
            f"{subject}: its output has shape {list(found.shape)}, eager float32 has"
            f" {list(expected.shape)}, so it is not timed."
        )
    rms, largest = distances(found, expected)
    if not (rms <= allowed.rms and largest <= allowed.largest):
        raise LatentCliError(
            f"{subject}: its output is not that of eager float32, so it is not timed: relative RMS"
            f" {rms:.2g} ({allowed.rms:g} allowed), largest difference {largest:.2g} of the"
            f" largest value ({allowed.largest:g} allowed)."
        )
    return {
        "model": timed.name,
        "op": case.op,
        "resolution": case.resolution,
        "batch": case.batch,
        "relative_rms": rms,
        "relative_max": largest,
        "tolerance": allowed.rms,
        "tolerance_max": allowed.largest,
        "ok": True,
    }


def fault(output: Tensor) -> str | None:
    """What shows without a reference that an output [N, ...] is none, or None.

    Values that are no numbers, one value everywhere, or the same for different inputs.
    """
    if not torch.isfinite(output).all():
        return "has values that are NaN or infinite"
    size = output.abs().max()
    if output.max() - output.min() <= FINITE_DIFFERENCE * size:
        return f"is {float(output.flatten()[0]):g} everywhere"
    if len(output) > 1 and (output[0] - output[1]).abs().max() <= FINITE_DIFFERENCE * size:
        return "is the same for different inputs"
    return None
