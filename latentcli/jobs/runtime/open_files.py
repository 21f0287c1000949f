"""Leads the files that a process has inherited nowhere."""

from __future__ import annotations

import os
import resource
from pathlib import Path

MOST = 2**16
"""Descriptors that are looked at where the system does not list those that are open."""
STREAMS = 3
"""Standard streams."""


def lead_nowhere(kept: int) -> None:
    """Leads all files of this process nowhere, but `kept` and standard error, which has both.

    They stay open so that no new file gets the number of one that an object will close. So do
    standard streams that were closed: nothing that is opened later takes messages.
    """
    nowhere = os.open(os.devnull, os.O_RDWR)
    while nowhere < STREAMS:
        nowhere = os.open(os.devnull, os.O_RDWR)
    for number in open_files():
        if number not in (2, kept, nowhere) and is_open(number):
            os.dup2(nowhere, number)
    os.dup2(2, 1)


def open_files() -> list[int]:
    """Descriptors that are open, and perhaps others."""
    try:
        return [int(path.name) for path in Path("/proc/self/fd").iterdir()]
    except OSError:
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return [*range(MOST if soft < 0 else min(soft, MOST))]


def is_open(number: int) -> bool:
    """Whether a descriptor leads anywhere."""
    try:
        os.fstat(number)
    except OSError:
        return False
    return True
