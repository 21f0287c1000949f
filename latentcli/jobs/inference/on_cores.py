"""Gives each core of a CPU pieces of a batch of its own.

Within one call of a network the cores wait for each other once a layer; so they wait once a batch.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from typing import TypeVar

import torch

T = TypeVar("T")

PIECE_PIXELS = 2**16
"""Pixels that a core gets at once, or one picture: enough to keep it busy."""


def on_cores(work: Callable[[slice], T], count: int, pixels: int, *, alone: bool = True) -> list[T]:
    """What `work` gives for each piece of a batch: `count` pictures of so many pixels each.

    A piece has one thread of torch's, so a picture has the same bits whatever the number of
    threads. Not `alone`, threads that would be idle, as there are fewer pieces, are shared among
    them.
    """
    threads = torch.get_num_threads()
    size, each = piece_of(count, pixels, alone=alone)
    parts = [slice(start, start + size) for start in range(0, count, size)]

    def piece(part: slice) -> T:
        torch.set_num_threads(each)
        return work(part)

    try:
        if threads == 1 or len(parts) == 1:
            return [piece(part) for part in parts]
        begun = [core_threads(threads).submit(piece, part) for part in parts]
        try:
            return [future.result() for future in begun]
        finally:
            # After an error the caller may try fewer pictures: these must not hold its memory.
            for future in begun:
                future.cancel()
            wait(begun)
    finally:
        torch.set_num_threads(threads)


def piece_of(count: int, pixels: int, *, alone: bool) -> tuple[int, int]:
    """(Pictures, threads of torch's) of each piece but the last; the arguments are as above."""
    size = max(1, PIECE_PIXELS // pixels)
    pieces = max(1, -(-count // size))
    return size, 1 if alone else max(1, torch.get_num_threads() // pieces)


@cache
def core_threads(threads: int) -> ThreadPoolExecutor:
    """The threads that compute on a CPU."""
    return ThreadPoolExecutor(threads, thread_name_prefix="compute")
