"""Multiplies rows of features by weights that were rearranged before to suit the processor.

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
    """Rows [..., I] to x W^T + b, [..., O], all in the weights' dtype; `weight` is [O, I].

    The weight is there once: as oneDNN multiplies by it, where it does, else as torch has it.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = reordered(frozen(weight, dtype))
        self.bias = None if bias is None else frozen(bias, dtype)

    def forward(self, rows: Tensor) -> Tensor:
        return self._pointwise(rows, "none", "") if self._is_reordered else self._linear(rows)

    def gelu(self, rows: Tensor) -> Tensor:
        """The exact GELU of the product."""
        if self._is_reordered:
            return self._pointwise(rows, "gelu", "none")
        return F.gelu(self._linear(rows))

    def plus(self, rows: Tensor, other: Tensor) -> Tensor:
        """The product plus `other` [..., O], which oneDNN rounds once."""
        if not self._is_reordered:
            return self._linear(rows) + other
        binary = torch.ops.mkldnn._linear_pointwise.binary
        out: Tensor = binary(rows, other, self.weight, self.bias, "add")
        return out

    def in_order(self) -> nn.Parameter:
        """The weight [O, I] as torch has it: the same values."""
        if not self._is_reordered:
            return self.weight
        return nn.Parameter(self.weight.detach().to_dense(), requires_grad=False)

    @property
    def _is_reordered(self) -> bool:
        return self.weight.layout is not torch.strided

    def _linear(self, rows: Tensor) -> Tensor:
        return F.linear(rows, self.weight, self.bias)

    def _pointwise(self, rows: Tensor, function: str, algorithm: str) -> Tensor:
        run = torch.ops.mkldnn._linear_pointwise
        out: Tensor = run(rows, self.weight, self.bias, function, [], algorithm)
        return out

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        # Moves and casts know no other order.
        self.weight = self.in_order()
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.weight = reordered(self.weight)
        return self

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        weight = self.in_order()
        destination[f"{prefix}weight"] = weight if keep_vars else weight.detach()


def traceable(network: nn.Module) -> None:
    """Has the products of a network keep their weights as torch's compiler can trace them.

    It reorders weights by itself.
    """
    for layer in network.modules():
        if isinstance(layer, Product):
            layer.weight = layer.in_order()


def reordered(weight: nn.Parameter) -> nn.Parameter:
    """A CPU's bfloat16 weight [O, I] as oneDNN multiplies by it; itself where `F.linear` is to run.

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
        return weight
    return nn.Parameter(operators._reorder_linear_weight(weight.detach()), requires_grad=False)
