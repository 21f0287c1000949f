"""Keeps products of float32 networks exact where a GPU would round their factors to TF32.

torch lets cuDNN do so in convolutions unless it is told otherwise, and trainers allow it in matrix
products too. Both are settings of the process, so they are put back after each call: a network that
is trained beside ours keeps its own.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)
Given = ParamSpec("Given")
Result = TypeVar("Result")

Method = Callable[Concatenate[Network, Given], Result]


def exact_products(call: Method[Network, Given, Result]) -> Method[Network, Given, Result]:
    """A network's method, of which no product is rounded more than its dtype says.

    Code that torch compiles keeps the settings that it is compiled with.
    """

    @wraps(call)
    def run(network: Network, /, *args: Given.args, **kwargs: Given.kwargs) -> Result:
        if torch.compiler.is_compiling() or next(network.parameters()).device.type == "cpu":
            return call(network, *args, **kwargs)
        backends: tuple[Any, ...] = torch.backends.cuda.matmul, torch.backends.cudnn
        before = [backend.allow_tf32 for backend in backends]
        try:
            for backend in backends:
                backend.allow_tf32 = False
            return call(network, *args, **kwargs)
        finally:
            for backend, allowed in zip(backends, before, strict=True):
                backend.allow_tf32 = allowed

    return run
