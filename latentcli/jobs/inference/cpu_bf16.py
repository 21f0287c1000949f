"""Finds out whether this machine's processor multiplies in bfloat16, and so what auto means on it.

An instruction alone does not say so: a virtual machine may show one that is slow, and oneDNN may be
told, or built, not to use it. So where the processor names one, a product as networks have it is
timed in both dtypes, once a process.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache, partial

import torch
from torch import Tensor

from latentcli.models.fast.products import Product

INSTRUCTIONS = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
"""Functions of torch.cpu, none of them promised: instructions that multiply bfloat16."""
ROWS, INPUTS, OUTPUTS = 256, 512, 1024
"""Of the product that is timed: small enough for a cache, large enough for a matrix unit."""
REPEATS = 5
AT_LEAST = 1.3
"""How many times as fast bfloat16 must be. A unit for it is made to be twice as fast or more, and
without one it is slower than float32: what is measured comes nowhere near, so noise has no say."""


@cache
def multiplies_bf16() -> bool:
    """Whether networks are to run in bfloat16 on this processor, unless the user says otherwise."""
    return has_instruction() and bf16_speedup() >= AT_LEAST


def has_instruction() -> bool:
    """Whether the processor, as torch may use it, names an instruction for it.

    ATEN_CPU_CAPABILITY, a variable of torch's, keeps torch to older instructions.
    """
    allowed = torch.backends.cpu.get_cpu_capability()
    return "AVX512" in allowed and any(getattr(torch.cpu, name, bool)() for name in INSTRUCTIONS)


@torch.inference_mode()
def bf16_speedup() -> float:
    """How many times as fast a product in bfloat16 is as in float32, in one thread.

    It takes some 20 ms. The two take turns, and the quickest of each counts.
    """
    weight = torch.linspace(-1, 1, INPUTS * OUTPUTS).reshape(OUTPUTS, INPUTS)
    rows = torch.linspace(-1, 1, ROWS * INPUTS).reshape(ROWS, INPUTS)
    calls = [product(weight, rows, dtype) for dtype in (torch.float32, torch.bfloat16)]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        turns = [[seconds(call) for call in calls] for _ in range(1 + REPEATS)]
    finally:
        torch.set_num_threads(threads)
    exact, low = (min(times) for times in zip(*turns[1:], strict=True))
    return float(exact / low)


def product(weight: Tensor, rows: Tensor, dtype: torch.dtype) -> Callable[[], Tensor]:
    """A product of networks in their fast form, of rows [N, I] and a weight [O, I], in a dtype."""
    return partial(Product(weight, None, dtype), rows.to(dtype))


def seconds(call: Callable[[], object]) -> float:
    """How long a call takes."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin
