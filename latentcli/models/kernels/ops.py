"""Offers the kernels as operators of torch: on a GPU in Triton, on a CPU as the reference says.

torch sends each call to the device of its tensors, and its compiler takes an operator as a whole.
Triton is loaded at the first call on a GPU, as it takes a second.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch import library as torch_operators

from latentcli.models.kernels import reference

logger = logging.getLogger(__name__)

NAMESPACE = "latentcli"
PART = 128
"""Tokens of an image that a large GPU multiplies at once."""
SMALL_PART = 64
"""The same where there are few."""
FEW = 1024
"""Tokens of all images that are few: such parts of them would not keep a large GPU busy."""
SERVED = frozenset({("cuda", torch.bfloat16)})
"""What the kernels are for. In float32 torch's own products are exact, and these are not faster."""


@dataclass(frozen=True, slots=True)
class Operator:
    """One kernel as torch knows it."""

    schema: str
    """Its arguments and results, as torch writes them."""
    reference: Callable[..., Any]
    """What it computes, on any device."""
    shaped: Callable[..., Any]
    """Empty results for its arguments."""
    results: tuple[str, ...]
    """Names of what the kernel writes."""


def _gelu_shapes(rows: Tensor, weight: Tensor, bias: Tensor | None, part: int) -> list[Tensor]:
    count, tokens, _ = rows.shape
    parts = -(-tokens // part) if part else 0
    return [
        rows.new_empty((count, tokens, len(weight))),
        rows.new_empty((count, parts, len(weight)), dtype=torch.float32),
    ]


OPERATORS: Mapping[str, Operator] = {
    "depthwise_norm": Operator(
        "(Tensor x, Tensor taps, Tensor bias, Tensor? modulation) -> Tensor",
        reference.depthwise_norm,
        lambda x, *_: torch.empty_like(x),
        ("out",),
    ),
    "gelu_product": Operator(
        "(Tensor rows, Tensor weight, Tensor? bias, int part) -> Tensor[]",
        reference.gelu_product,
        _gelu_shapes,
        ("out", "squares"),
    ),
    "grn_factors": Operator(
        "(Tensor squares, Tensor gamma) -> Tensor",
        reference.grn_factors,
        lambda squares, _: squares.new_empty((len(squares), squares.shape[-1])),
        ("out",),
    ),
    "residual_product": Operator(
        "(Tensor rows, Tensor factors, Tensor weight, Tensor bias, Tensor residual,"
        " Tensor? modulation) -> Tensor",
        reference.residual_product,
        lambda *given: torch.empty_like(given[4]),
        ("out",),
    ),
    "token_norm": Operator(
        "(Tensor tokens) -> Tensor",
        reference.token_norm,
        torch.empty_like,
        ("normed",),
    ),
    "token_norms": Operator(
        "(Tensor tokens, Tensor update, Tensor gain) -> Tensor[]",
        reference.token_norms,
        lambda tokens, *_: [torch.empty_like(tokens), torch.empty_like(tokens)],
        ("total", "normed"),
    ),
    "turned_heads": Operator(
        "(Tensor qkv, Tensor weight, Tensor turns) -> Tensor",
        reference.turned_heads,
        lambda qkv, *_: torch.empty_like(qkv[:, :, :2], memory_format=torch.contiguous_format),
        ("out",),
    ),
}


def _registered() -> Any:
    library: Any = torch_operators.Library(NAMESPACE, "DEF")  # type: ignore[no-untyped-call]
    for name, operator in OPERATORS.items():
        library.define(name + operator.schema)
        library.impl(name, operator.reference, "CPU")
        library.impl(name, _on_gpu(name, operator.results), "CUDA")
        # register_fake would note where it is called, and look through all modules for that.
        library.impl(name, operator.shaped, "Meta")
    return library


def _on_gpu(name: str, results: tuple[str, ...]) -> Callable[..., Any]:
    def run(*given: Any) -> Any:
        ready = [each.contiguous() if isinstance(each, Tensor) else each for each in given]
        launch = getattr(import_module("latentcli.models.kernels.launch"), name)(*ready)
        launch.run()
        made = [launch.arguments[result] for result in results]
        return made if len(made) > 1 else made[0]

    return run


LIBRARY = _registered()
"""Keeps the operators; torch forgets them with it."""
operators = getattr(torch.ops, NAMESPACE)


@cache
def has_triton() -> bool:
    """Whether Triton is installed; torch's builds for CUDA bring it, but not on every system."""
    return find_spec("triton") is not None


@cache
def works(device: torch.device) -> bool:
    """Whether a kernel can be compiled and launched on a device; a warning says why not."""
    try:
        operators.token_norm(torch.ones(1, 1, 16, dtype=torch.bfloat16, device=device))
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # Triton and what it calls, such as a C compiler, have many
        logger.warning("The fused kernels do not work on %s, it is slower: %s", device, error)
        return False
    return True


def serves(x: Tensor) -> bool:
    """Whether a network's features are to go through the kernels."""
    return (x.device.type, x.dtype) in SERVED and has_triton() and works(x.device)


def part_of(rows: Tensor) -> int:
    """Tokens of a part, for `gelu_product` of rows [N, T, I]: by the shape alone."""
    few = rows.shape[0] * rows.shape[1] < FEW or rows.shape[1] <= SMALL_PART
    return SMALL_PART if few else PART
