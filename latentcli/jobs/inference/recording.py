"""Records what a call has a GPU do, and has the GPU do all of it again at one launch.

A small batch leaves a GPU idle while the host launches its kernels one by one. A recording has
fixed shapes, and fixed memory that it reads and writes: inputs are copied in and results out. Not
yet run on a card.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from latentcli.jobs.inference.accelerator import Accelerator

SMALL = 2**20
"""Pixels of a batch up to which it is recorded: one picture of 1024x1024. In larger ones each
kernel is at work for longer than it takes to launch one."""
BEFORE = 3
"""Calls before the one that is recorded: libraries take memory and choose kernels at the first."""

Outputs = tuple[Tensor, ...]


def can_record(accelerator: Accelerator, pixels: int) -> bool:
    """Whether calls for batches of so many pixels are recorded on a device."""
    return bool(accelerator.recorder) and pixels <= SMALL


def recorded(
    call: Callable[..., Outputs], given: Sequence[Any], accelerator: Accelerator
) -> Callable[..., Outputs]:
    """What gives the results of `call` for arguments as those given, whose tensors may differ.

    The call must not wait for the device, nor take values from the host: torch's RuntimeError where
    it does. One thread may use the result, on the device that is its own.
    """
    torch_of: Any = torch.get_device_module(accelerator.name)
    accelerator.use()
    with torch.inference_mode(False):
        held = [torch.empty_like(each) if _is_tensor(each) else each for each in given]
    _fill(held, given)
    graph, stream = getattr(torch_of, accelerator.recorder)(), torch_of.Stream(accelerator.device)
    stream.wait_stream(torch_of.current_stream(accelerator.device))
    with torch_of.stream(stream):
        for _ in range(BEFORE):
            call(*held)
        accelerator.synchronize()
        # Other threads may copy and pin meanwhile.
        graph.capture_begin(capture_error_mode="thread_local")
        try:
            results = call(*held)
        finally:
            graph.capture_end()

    def again(*given: Any) -> Outputs:
        _fill(held, given)
        graph.replay()
        return tuple(result.clone() for result in results)

    return again


def _fill(held: Sequence[Any], given: Sequence[Any]) -> None:
    for target, source in zip(held, given, strict=True):
        if _is_tensor(target):
            target.copy_(source)


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)
