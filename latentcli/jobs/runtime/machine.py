"""Counts the machine's cores, and asks the system for what its processes need."""

from __future__ import annotations

import ctypes
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path

PER_CORE = 4
"""Processes or threads that share a core at most: some wait for storage, but not endlessly many."""
FEWEST_CORES = 2
"""Counted where there are fewer: two of a kind are always allowed to wait for each other."""

CGROUPS = Path("/sys/fs/cgroup")

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_PR_SET_PDEATHSIG = 1
_KEPT_BYTES, _LARGEST_BLOCK = 128 * 2**20, 32 * 2**20


def reuse_heap() -> None:
    """Makes glibc keep freed blocks of up to 32 MiB for the next batch; elsewhere nothing.

    By default each such block goes back to the system when it is freed, and its pages are zeroed
    and mapped again for the next one: about a third of the time of a small network on a CPU. Those
    that are free already go back now.
    """
    try:
        libc = ctypes.CDLL(None)
        trim, mallopt = libc.malloc_trim, libc.mallopt
    except (AttributeError, OSError):
        return
    trim(0)
    mallopt(_M_MMAP_THRESHOLD, _LARGEST_BLOCK)
    mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def end_with_parent(parent: int) -> None:
    """Has the system kill this process as soon as the one that started it has ended; on Linux.

    `parent` is the number of that one: where it has ended before, this one ends here.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def cores() -> int:
    """CPU cores that Slurm, a container or taskset left this process; else all that there are."""
    seen = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        seen = len(os.sched_getaffinity(0))
    share = time_share(CGROUPS)
    return seen if math.isinf(share) else max(1, min(seen, math.ceil(share)))


def time_share(cgroups: Path) -> float:
    """How many cores' time a container may take, as `docker --cpus` or Kubernetes limit it.

    `cgroups` is where Linux shows its control groups, of either version; infinite without a limit.
    """
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            quota, period = " ".join((cgroups / name).read_text() for name in names).split()
            if quota.isdigit() and int(period) > 0:
                return int(quota) / int(period)
        except (OSError, ValueError):
            continue
    return math.inf


def carried() -> int:
    """Processes or threads of a job that this machine's cores carry."""
    return PER_CORE * max(cores(), FEWEST_CORES)


def within_reach(
    workers: int, beside: int = 1, note: Callable[[str], object] = lambda text: None
) -> int:
    """`workers`, or as many as the machine carries where these are fewer, and then a note.

    `beside` is how many processes of the job share the machine.
    """
    most = max(carried() // beside, 1)
    if workers <= most:
        return workers
    note(
        f"--workers {workers:,} is too many for this machine (CPU cores: {cores():,}); {most:,}"
        " are started."
    )
    return most
