"""Runs kernels without a GPU: in Triton's interpreter, and through its compiler for GPUs.

Triton decides when it is loaded whether it interprets, so that is done in a process of its own.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latentcli.models.kernels.ops import OPERATORS

Arguments = tuple[Any, ...]

D = 896
"""Width of the published networks."""
SHARED_MEMORY = {80: 163, 90: 227, 100: 227, 120: 99}
"""KiB that a program may have, by compute capability."""


def drawn(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal float32, the same each time."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def turns(tokens: int, dim: int) -> Tensor:
    """Cosines and sines [tokens, dim / 2, 2] of some angles."""
    return torch.view_as_real(torch.polar(torch.ones(tokens, dim // 2), drawn(tokens, dim // 2)))


ODD: Mapping[str, tuple[str, Callable[[], Arguments]]] = {
    "norm": ("token_norm", lambda: (drawn(1, 3, 24),)),
    "norms": ("token_norms", lambda: (drawn(2, 3, 24), drawn(2, 3, 24, seed=1), drawn(24))),
    "factors": ("grn_factors", lambda: (drawn(2, 3, 40).abs(), drawn(40))),
    "heads": ("turned_heads", lambda: (drawn(2, 5, 3, 3, 16), drawn(2, 16), turns(5, 16))),
    "depthwise": (
        "depthwise_norm",
        lambda: (drawn(2, 3, 9, 40), drawn(3, 3, 40), drawn(40), drawn(2, 80)),
    ),
    "depthwise of 7x7, one modulation for all": (
        "depthwise_norm",
        lambda: (drawn(1, 2, 3, 40), drawn(7, 7, 40), drawn(40), drawn(1, 80)),
    ),
    "depthwise, not scaled": (
        "depthwise_norm",
        lambda: (drawn(1, 1, 2, 40), drawn(3, 3, 40), drawn(40), None),
    ),
    "gelu and squares": (
        "gelu_product",
        lambda: (drawn(2, 70, 72), drawn(80, 72) / 8, drawn(80), 64),
    ),
    "gelu alone": ("gelu_product", lambda: (drawn(2, 70, 128), drawn(80, 128) / 8, None, 0)),
    "residual": (
        "residual_product",
        lambda: (
            *(drawn(2, 70, 72), drawn(2, 72), drawn(40, 72) / 8),
            *(drawn(40), drawn(2, 70, 40), drawn(2, 80)),
        ),
    ),
    "residual, one gate for all": (
        "residual_product",
        lambda: (
            *(drawn(2, 70, 128), drawn(2, 128), drawn(40, 128) / 8),
            *(drawn(40), drawn(2, 70, 40), drawn(1, 80)),
        ),
    ),
    "residual, not gated": (
        "residual_product",
        lambda: (
            *(drawn(1, 3, 128), drawn(1, 128), drawn(40, 128) / 8),
            *(drawn(40), drawn(1, 3, 40), None),
        ),
    ),
}
"""Small cases of odd sizes: what an operator is given."""


def bf16(*shape: int) -> Tensor:
    """A tensor without values."""
    return torch.empty(shape, dtype=torch.bfloat16, device="meta")


def fp32(*shape: int) -> Tensor:
    """A tensor without values."""
    return torch.empty(shape, device="meta")


PUBLISHED: Mapping[str, tuple[str, Callable[[], Arguments]]] = {
    "norm": ("token_norm", lambda: (bf16(128, 256, D),)),
    "norms": ("token_norms", lambda: (bf16(128, 256, D), bf16(128, 256, D), bf16(D))),
    "factors": ("grn_factors", lambda: (fp32(128, 2, 4 * D), fp32(4 * D))),
    "heads": (
        "turned_heads",
        lambda: (bf16(128, 256, 3, D // 64, 64), fp32(2, 64), fp32(256, 32, 2)),
    ),
    "depthwise": (
        "depthwise_norm",
        lambda: (bf16(128, 16, 16, D), bf16(7, 7, D), bf16(D), None),
    ),
    "depthwise, scaled": (
        "depthwise_norm",
        lambda: (bf16(1, 32, 32, D), bf16(7, 7, D), bf16(D), bf16(1, 2 * D)),
    ),
    "gelu and squares": (
        "gelu_product",
        lambda: (bf16(128, 256, D), bf16(4 * D, D), bf16(4 * D), 128),
    ),
    "gelu alone": ("gelu_product", lambda: (bf16(128, 256, D), bf16(4 * D, D), None, 0)),
    "gelu of few": ("gelu_product", lambda: (bf16(1, 256, D), bf16(4 * D, D), bf16(4 * D), 64)),
    "residual": (
        "residual_product",
        lambda: (
            *(bf16(128, 256, 4 * D), fp32(128, 4 * D), bf16(D, 4 * D), bf16(D)),
            *(bf16(128, 256, D), None),
        ),
    ),
    "residual of few, gated": (
        "residual_product",
        lambda: (
            *(bf16(1, 1024, 4 * D), fp32(1, 4 * D), bf16(D, 4 * D), bf16(D)),
            *(bf16(1, 1024, D), bf16(1, 2 * D)),
        ),
    ),
}
"""What the published networks give the kernels."""


@contextmanager
def interpreter() -> Iterator[ProcessPoolExecutor]:
    """A process in which Triton interprets."""
    with ProcessPoolExecutor(1, get_context("spawn"), _interpreting) as process:
        yield process


def _interpreting() -> None:
    os.environ["TRITON_INTERPRET"] = "1"
    torch.set_num_threads(1)


def interpreted(case: str, dtype: torch.dtype) -> list[Tensor]:
    """A small case's results, whose memory held NaN before; call it in an `interpreter`."""
    name, given = ODD[case]
    launches = import_module("latentcli.models.kernels.launch")
    launch = getattr(launches, name)(*_cast(name, given(), dtype))
    made = [launch.arguments[result] for result in OPERATORS[name].results]
    for tensor in made:
        tensor.fill_(torch.nan)
    launch.run()
    return made


def expected(case: str, dtype: torch.dtype) -> list[Tensor]:
    """The same results from the same values in torch, in float64."""
    name, given = ODD[case]
    wide = [
        each.double() if isinstance(each, Tensor) else each for each in _cast(name, given(), dtype)
    ]
    out = OPERATORS[name].reference(*wide)
    return list(out) if isinstance(out, list) else [out]


FLOAT32 = {"grn_factors": (0, 1), "turned_heads": (1, 2), "residual_product": (1,)}
"""Positions of what stays float32."""


def _cast(name: str, given: Arguments, dtype: torch.dtype) -> list[Any]:
    return [
        each.to(dtype) if isinstance(each, Tensor) and i not in FLOAT32.get(name, ()) else each
        for i, each in enumerate(given)
    ]


@dataclass(frozen=True)
class Resources:
    """What a compiled kernel takes of a GPU."""

    registers: int
    """Of each thread."""
    spilled: int
    """Bytes of each thread that found no register."""
    shared: int
    """Bytes of each program."""


POINTERS = {torch.bfloat16: "*bf16", torch.float32: "*fp32"}


def compiled(case: str, capability: int, folder: Path) -> Resources:
    """A published case, compiled for a compute capability such as 90."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    name, given = PUBLISHED[case]
    launches = import_module("latentcli.models.kernels.launch")
    launch = getattr(launches, name)(*given())
    signature = dict.fromkeys(launch.kernel.arg_names, "constexpr")
    aligned = {}
    for i, argument in enumerate(launch.kernel.arg_names):
        if argument in launch.arguments:
            value = launch.arguments[argument]
            of_tensor = isinstance(value, Tensor)
            signature[argument] = POINTERS[value.dtype] if of_tensor else "i32"
            if of_tensor or (value % 16 == 0):
                aligned[(i,)] = [["tt.divisibility", 16]]
    made = triton.compile(
        ASTSource(launch.kernel, signature, constexprs=dict(launch.constants), attrs=aligned),
        target=GPUTarget("cuda", capability, 32),
        options={"num_warps": launch.warps, "num_stages": launch.stages},
    )
    binary = folder / f"{name}.cubin"
    binary.write_bytes(made.asm["cubin"])
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    ran = subprocess.run([tool, "-res-usage", binary], capture_output=True, text=True, check=True)
    told = dict(re.findall(r"(REG|STACK|LOCAL):(\d+)", ran.stdout))
    spilled = int(told["STACK"]) + int(told["LOCAL"])
    return Resources(int(told["REG"]), spilled, made.metadata.shared)
