"""Counts the machine's cores, and keeps freed memory for the next batch."""

from __future__ import annotations

import ctypes
import os

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


def cores() -> int:
    """CPU cores that Slurm, a container or taskset left this process; else all that there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
