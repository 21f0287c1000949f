"""Keeps a model's work below --max-memory: measures what pictures take, for those in parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from latentcli.core.errors import UsageError
from latentcli.jobs.inference.accelerator import Accelerator
from latentcli.jobs.inference.memory import own_bytes, peak_bytes
from latentcli.models.base import Autoencoder
from latentcli.models.tiled.form import tiled_form
from latentcli.models.tiled.room import Room

LEAST_SIDE = 512
"""Pixels a side that a model must be able to compute whole: the self-check takes no more."""


def below(
    model: Autoencoder, max_memory: int, accelerator: Accelerator
) -> tuple[Autoencoder, Mapping[str, Room]]:
    """(The model that computes large pictures in parts, the room of its halves by name).

    `max_memory` is in bytes, of weights, pictures and work together. UsageError where that is less
    than the weights and a small picture.
    """
    weights = own_bytes(model)
    if max_memory <= weights:
        raise UsageError(
            f"--max-memory is {mib(max_memory)}, and the weights alone are {mib(weights)}: give"
            " more, or a smaller model."
        )

    def measure(call: Callable[[], Tensor]) -> tuple[Tensor, int]:
        return taken(call, accelerator)

    tiled, rooms = tiled_form(model, max_memory - weights, measure)
    least = weights + max(room.whole for room in rooms.values()) * LEAST_SIDE**2
    if max_memory < least:
        raise UsageError(
            f"--max-memory is {mib(max_memory)}; this model needs {mib(least)} for a picture of"
            f" {LEAST_SIDE}x{LEAST_SIDE}, its weights included: give at least that, or a smaller"
            " model."
        )
    return tiled, rooms


@torch.inference_mode()
def taken(call: Callable[[], Tensor], accelerator: Accelerator) -> tuple[Tensor, int]:
    """(What a call gives, the most bytes of a device that it took), the same for any threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        if not accelerator.gpu:
            return peak_bytes(call)
        call()  # libraries take memory once, to keep it
        accelerator.synchronize()
        peak = accelerator.watch_memory()
        output = call()
        accelerator.synchronize()
        return output, peak()
    finally:
        torch.set_num_threads(threads)


def mib(size: int) -> str:
    """Bytes in MiB, rounded up."""
    return f"{-(-size // 2**20)} MiB"
