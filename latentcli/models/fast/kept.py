"""Keeps what later batches need again, a few results in each network."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TypeVar

import torch

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

MOST = 64
"""Results that are kept: more than a decode has steps, or a job shapes of buckets."""


def kept(results: dict[K, V], key: K, make: Callable[[], V]) -> V:
    """The result of this key, made where it is not among those that were kept.

    Threads may share the results; one that comes too early makes its own. Under torch's compiler
    nothing is kept, so that all of it is in the graph.
    """
    if torch.compiler.is_compiling():
        return make()
    found = results.get(key)
    if found is None:
        if len(results) >= MOST:
            results.clear()
        found = results[key] = make()
    return found
