"""Peak memory of a device since it was last reset, in MiB, and how the heap is kept."""

from __future__ import annotations

import ctypes
import resource
from pathlib import Path

import torch

OUT_OF_MEMORY = (
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "ALLOC_FAILED",
)
"""Words of torch, CUDA and its libraries for memory that they did not get."""

_CLEAR = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BYTES, _LARGEST_BLOCK = 128 * 2**20, 32 * 2**20


def reuse_heap() -> None:
    """Makes glibc keep freed blocks of up to 32 MiB for the next batch; elsewhere nothing.

    By default each such block goes back to the system when it is freed, and its pages are zeroed
    and mapped again for the next one: about a third of the time of a small network on a CPU.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(_M_MMAP_THRESHOLD, _LARGEST_BLOCK)
    mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device, or the host as one, had not enough memory.

    Only torch's own allocator of a GPU raises torch.OutOfMemoryError; the others are told by words.
    """
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in OUT_OF_MEMORY)


def reset_peak_memory(device: torch.device) -> None:
    """Starts a new measurement; on systems that cannot, the old peak stands."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        _CLEAR.write_text("5")
    except OSError:
        return


def peak_memory(device: torch.device) -> float:
    """MiB: of torch's allocator on a GPU, of the whole resident process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        lines = _STATUS.read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
