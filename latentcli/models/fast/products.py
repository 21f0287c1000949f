"""Multiplies rows of features by weights that were laid out before, as the processor likes them.

A 1x1 convolution, a patch embedding and a linear layer are the same product where channels come
last. On a CPU oneDNN reorders bfloat16 weights at every call, which can cost half as much as the
product; it is done once here, by the operators that torch's own compiler uses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NORM_EPS = 1e-6
OPERATORS = ("_reorder_linear_weight", "_linear_pointwise", "_is_mkldnn_bf16_supported")
"""What torch.ops.mkldnn must have; none of them is promised by torch."""


def frozen(tensor: Tensor, dtype: torch.dtype) -> nn.Parameter:
    """The tensor in this dtype, as a weight that is not trained."""
    return nn.Parameter(tensor.detach().to(dtype), requires_grad=False)


def unit_rms(x: Tensor) -> Tensor:
    """The last dimension to unit RMS, in x's dtype; the sum and the root are float32.

    `F.rms_norm` does the same in twice the time on a CPU.
    """
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    return x * torch.rsqrt(norm.square() / x.shape[-1] + NORM_EPS).to(x.dtype)


class Product(nn.Module):
    """Rows [..., I] to x W^T + b, [..., O], all in the weights' dtype; `weight` is [O, I]."""

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = frozen(weight, dtype)
        self.bias = None if bias is None else frozen(bias, dtype)
        self._reordered = reordered(self.weight)

    def forward(self, rows: Tensor) -> Tensor:
        return self._linear(rows) if self._plain else self._pointwise(rows, "none", "")

    def gelu(self, rows: Tensor) -> Tensor:
        """The exact GELU of the product."""
        return F.gelu(self._linear(rows)) if self._plain else self._pointwise(rows, "gelu", "none")

    def plus(self, rows: Tensor, other: Tensor) -> Tensor:
        """The product plus `other` [..., O], which oneDNN rounds once."""
        if self._plain:
            return self._linear(rows) + other
        binary = torch.ops.mkldnn._linear_pointwise.binary
        out: Tensor = binary(rows, other, self._reordered, self.bias, "add")
        return out

    @property
    def _plain(self) -> bool:
        # torch's compiler reorders weights by itself, and cannot trace those that are.
        return self._reordered is None or torch.compiler.is_compiling()

    def _linear(self, rows: Tensor) -> Tensor:
        return F.linear(rows, self.weight, self.bias)

    def _pointwise(self, rows: Tensor, function: str, algorithm: str) -> Tensor:
        run = torch.ops.mkldnn._linear_pointwise
        out: Tensor = run(rows, self._reordered, self.bias, function, [], algorithm)
        return out

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        # The weights were moved or cast.
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._reordered = reordered(self.weight)
        return self


def reordered(weight: Tensor) -> Tensor | None:
    """A CPU's bfloat16 weight [O, I] as oneDNN multiplies by it; None where `F.linear` is to run.

    In float32 reordering gains nothing.
    """
    operators = torch.ops.mkldnn
    if (
        weight.device.type != "cpu"
        or weight.dtype != torch.bfloat16
        or not torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        or not all(hasattr(operators, name) for name in OPERATORS)
        or not operators._is_mkldnn_bf16_supported()
    ):
        return None
    out: Tensor = operators._reorder_linear_weight(weight.detach())
    return out
