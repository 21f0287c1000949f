"""Counts what a call asks of the machine: operators, matrix FLOPs, and bytes read and written."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

ALLOCATIONS = ("empty", "new_empty")
"""How the names of operators begin that only take memory."""


@dataclass(frozen=True, slots=True)
class Operator:
    """An operator that ran."""

    name: str
    flop: int
    """Of matrix products, convolutions and attention, two for a multiplication and its sum; the
    others count none."""
    nbytes: int
    """Of the tensors that it reads and those that it writes, each once."""


def linear_flop(arguments: Sequence[Any], out: Tensor) -> int:
    """Of rows [..., I] times a weight, [..., O]."""
    return 2 * out.numel() * int(arguments[0].shape[-1])


def gelu_product_flop(arguments: Sequence[Any], out: Sequence[Tensor]) -> int:
    """`linear_flop` of the product, which comes before sums of its squares."""
    return linear_flop(arguments, out[0])


def depthwise_flop(arguments: Sequence[Any], out: Tensor) -> int:
    """Of features [N, h, w, D] and taps [k, k, D]."""
    taps = arguments[1]
    return 2 * out.numel() * int(taps.shape[0] * taps.shape[1])


def attention_flop(arguments: Sequence[Any], out: Tensor) -> int:
    """Of queries [N, H, T, d], keys [N, H, S, d] and values [N, H, S, e]."""
    query, key, value = arguments[:3]
    pairs: int = math.prod(query.shape[:3]) * key.shape[-2]
    return 2 * pairs * int(query.shape[-1] + value.shape[-1])


OWN_FLOP: Mapping[str, Callable[[Sequence[Any], Any], int]] = {
    "mkldnn::_linear_pointwise": linear_flop,
    "latentcli::depthwise_norm": depthwise_flop,
    "latentcli::gelu_product": gelu_product_flop,
    "latentcli::residual_product": linear_flop,
    "aten::_scaled_dot_product_flash_attention_for_cpu": attention_flop,
}
"""By name, those that torch's own table of FLOPs lacks."""


def count_operators(call: Callable[[], object]) -> list[Operator]:
    """What the call gives torch to do, in order; views and allocations are no work.

    Code that torch.compile made is not seen: give the eager networks.
    """
    counting = _Counting([])
    with counting:
        call()
    return counting.done


class _Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes each operator below those that are made of others."""

    def __init__(self, done: list[Operator]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.done = done

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func._overloadpacket not in flop_registry:
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        out = func(*args, **kwargs)
        name = func._schema.name
        read, written = tensors((args, kwargs)), tensors(out)
        if written and not is_free(func, read, written):
            flop = flop_of(func, args, kwargs, out)
            self.done.append(Operator(name, flop, sum(map(nbytes, (*read, *written)))))
        return out


def tensors(values: Any) -> list[Tensor]:
    """Those among an operator's arguments or results."""
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def is_free(func: Any, read: Sequence[Tensor], written: Sequence[Tensor]) -> bool:
    """Whether an operator moves no bytes: it gives views of what it was given, or empty memory."""
    if func._schema.is_mutable:
        return False
    if func._schema.name.rpartition("::")[2].startswith(ALLOCATIONS):
        return True
    given = {storage(tensor) for tensor in read} - {None}
    return all(storage(tensor) in given for tensor in written)


def storage(tensor: Tensor) -> int | None:
    """What tells a tensor's memory from others'; None where a library keeps it to itself."""
    return tensor.untyped_storage()._cdata if tensor.layout is torch.strided else None


def nbytes(tensor: Tensor) -> int:
    """Bytes that lie in memory: what is expanded lies there once."""
    if tensor.layout is not torch.strided or not tensor.numel():
        return tensor.numel() * tensor.element_size()
    sides = zip(tensor.shape, tensor.stride(), strict=True)
    return tensor.element_size() * math.prod(side for side, stride in sides if stride)


def flop_of(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> int:
    """FLOPs of one operator."""
    known = flop_registry.get(func._overloadpacket)
    if known is not None:
        return int(known(*args, **kwargs, out_val=out))
    own = OWN_FLOP.get(func._schema.name)
    return own(args, out) if own else 0
