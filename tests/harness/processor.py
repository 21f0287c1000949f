"""Measures what calls take of the processor, to hold them against each other in one process.

A limit in seconds is one on the machine; how many times as long as another call is not.
"""

from __future__ import annotations

import time
from collections.abc import Callable

TIMES = 3


def processor_seconds(call: Callable[[], object]) -> float:
    """What a call takes of this process's processor: the least of a few, as others only add."""
    spent = []
    for _ in range(TIMES):
        began = time.process_time()
        call()
        spent.append(time.process_time() - began)
    return min(spent)
