"""Measures what the machine could do at most, and what share of that a model reaches.

A ceiling is measured in the turns of the models, so that what slows the machine down for a while
slows both.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from latentcli.jobs.bench.operations import Operator
from latentcli.jobs.inference.accelerator import Accelerator, DeviceTimer
from latentcli.jobs.inference.on_cores import PIECE_PIXELS, on_cores
from latentcli.models.fast.products import Product

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
COPY = "copy"
COPY_BYTES = 2**28
"""Of the tensor that is copied: more than caches hold."""
FIRST_SIDE = 256
"""Of the square matrices; it doubles until a product takes long enough."""
LEAST_SECONDS = 0.02
"""What a measurement takes at the least, in as many calls as that needs."""
SHARES = ("gflop", "gbyte", "operators", "matrix_share", "copy_share")
"""What a row of the document has of a model beside the machine; None where it was not asked for."""


@dataclass(slots=True)
class Ceiling:
    """A rate of the machine, and what was measured of it so far."""

    name: str
    """fp32 or bf16: products of matrices in that dtype; copy: of a tensor within the memory."""
    work: int
    """FLOP of a call, or bytes that it reads and writes."""
    call: Callable[[], object]
    calls: int
    """In each measurement."""
    rates: list[float] = field(default_factory=list)
    """FLOP or bytes a second in each measurement."""

    @torch.inference_mode()
    def measure(self, accelerator: Accelerator) -> None:
        """One more measurement."""
        seconds = seconds_of(self.call, self.calls, accelerator)
        self.rates.append(self.calls * self.work / seconds)


def seconds_of(call: Callable[[], object], calls: int, accelerator: Accelerator) -> float:
    """How long so many calls take."""
    accelerator.synchronize()
    with DeviceTimer(accelerator) as timer:
        for _ in range(calls):
            call()
    return timer.seconds()


@torch.inference_mode()
def ceilings_of(accelerator: Accelerator, dtype: str) -> list[Ceiling]:
    """Those of a device, warm: products in fp32, bf16 where it has that, and `dtype`; and copies.

    On a CPU each of torch's threads multiplies matrices of its own, as an encode job has each core
    encode a picture of its own; a GPU is given one product.
    """
    wanted = ["fp32", *(["bf16"] if accelerator.has_bf16() else []), dtype]
    products = [product_ceiling(name, accelerator) for name in dict.fromkeys(wanted)]
    return [*products, copy_ceiling(accelerator)]


def product_ceiling(name: str, accelerator: Accelerator) -> Ceiling:
    """The rate of products of square matrices, as large as one that takes long enough."""
    side = FIRST_SIDE
    while True:
        ceiling = product_of(name, side, accelerator)
        seconds = warm_seconds(ceiling.call, accelerator)
        if seconds >= LEAST_SECONDS or side >= accelerator.matrix_side:
            return enough_calls(ceiling, seconds)
        side *= 2


def product_of(name: str, side: int, accelerator: Accelerator) -> Ceiling:
    """Products of [side, side] matrices, one for each thread of a CPU."""
    lanes = 1 if accelerator.gpu else torch.get_num_threads()
    rows, weight = (torch.randn(side, side, device=accelerator.device) for _ in range(2))
    product, rows = Product(weight, None, DTYPES[name]), rows.to(DTYPES[name])
    return Ceiling(name, lanes * 2 * side**3, side_by_side(lambda: product(rows), lanes), 1)


def side_by_side(call: Callable[[], object], lanes: int) -> Callable[[], object]:
    """The call in so many threads at once, each with one thread of torch."""

    @torch.inference_mode()
    def alone(_: slice) -> object:
        return call()

    return call if lanes == 1 else lambda: on_cores(alone, lanes, PIECE_PIXELS)


def copy_ceiling(accelerator: Accelerator) -> Ceiling:
    """The rate of copies from memory to memory, by all of torch's threads."""
    source = torch.ones(COPY_BYTES, dtype=torch.uint8, device=accelerator.device)
    target = torch.empty_like(source)
    ceiling = Ceiling(COPY, 2 * COPY_BYTES, lambda: target.copy_(source), 1)
    return enough_calls(ceiling, warm_seconds(ceiling.call, accelerator))


def warm_seconds(call: Callable[[], object], accelerator: Accelerator) -> float:
    """How long a call takes that is not the first."""
    call()
    return seconds_of(call, 1, accelerator)


def enough_calls(ceiling: Ceiling, seconds: float) -> Ceiling:
    """The ceiling, with as many calls as make a measurement long enough."""
    ceiling.calls = max(1, math.ceil(LEAST_SECONDS / max(seconds, 1e-9)))
    return ceiling


def measure_all(ceilings: Iterable[Ceiling], accelerator: Accelerator) -> None:
    """One more measurement of each."""
    for ceiling in ceilings:
        ceiling.measure(accelerator)


def shares(
    operators: Sequence[Operator],
    seconds: Sequence[float],
    ceilings: Sequence[Ceiling],
    dtype: str,
) -> dict[str, Any]:
    """The figures of `SHARES`, of a model whose calls took `seconds`, turn by turn.

    `gflop` and `gbyte` are of one call. A share is the median over the turns of what the model did
    in a second over what the machine did in the same turn. That of copies can be above 1: what one
    operator leaves in a cache, the next need not read from memory.
    """
    flop = sum(operator.flop for operator in operators)
    moved = sum(operator.nbytes for operator in operators)
    rates = {ceiling.name: ceiling.rates[-len(seconds) :] for ceiling in ceilings}
    figures = (
        round(flop / 1e9, 3),
        round(moved / 1e9, 4),
        len(operators),
        share(flop, seconds, rates[dtype]),
        share(moved, seconds, rates[COPY]),
    )
    return dict(zip(SHARES, figures, strict=True))


def share(work: float, seconds: Sequence[float], rates: Sequence[float]) -> float:
    """Median over the turns of the rate of this work over the machine's."""
    turns = zip(seconds, rates, strict=True)
    return round(statistics.median(work / spent / rate for spent, rate in turns), 4)


def ceilings_document(ceilings: Sequence[Ceiling]) -> Mapping[str, Any]:
    """The medians of all measurements: products by dtype, in GFLOP/s, and copies, in GB/s."""
    rates = {each.name: round(statistics.median(each.rates) / 1e9, 2) for each in ceilings}
    copy = rates.pop(COPY)
    return {"gflop_per_second": rates, "copy_gbyte_per_second": copy}
