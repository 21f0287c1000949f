"""Counts the CPU cores that this process may use."""

import os


def cores() -> int:
    """Those that Slurm, a container or taskset left it; where no system tells, all there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
