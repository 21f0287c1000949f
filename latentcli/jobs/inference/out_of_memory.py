"""Tells errors of memory from others, and gives memory back."""

from __future__ import annotations

from collections.abc import Sequence

import torch

OUT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "ALLOC_FAILED")
"""Words of torch and the libraries below it for memory that they did not get."""
NO_WAY = ("unable to find an engine to execute this computation", "no valid convolution algorithm")
"""Words of a library that tried every way to compute something and got none to work.

A library of convolutions leaves out a way that had not enough memory to work in, and at the end
tells of no memory. It says the same where it has no way at all, as for numbers that the device does
not know.
"""


def empty_cache() -> None:
    """Gives back the memory of GPUs that torch keeps for later; without one it does nothing."""
    if torch.accelerator.is_available():
        torch.accelerator.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device, or the host as one, had not enough memory.

    Only torch's own allocator of a GPU raises torch.OutOfMemoryError; the others are told by words.
    """
    return isinstance(error, torch.OutOfMemoryError) or _says(error, OUT_OF_MEMORY)


def may_be_out_of_memory(error: BaseException) -> bool:
    """Whether a smaller batch is worth a try after an error, which may be one of another kind."""
    return is_out_of_memory(error) or _says(error, NO_WAY)


def _says(error: BaseException, words: Sequence[str]) -> bool:
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)
