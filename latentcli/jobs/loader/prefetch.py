"""Iterates ahead: a thread makes items before they are asked for, in order and bounded."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from latentcli.jobs.loader.reorder_buffer import ReorderBuffer

T = TypeVar("T")


@contextmanager
def prefetch(
    items: Iterable[T],
    depth: int,
    waiting: Callable[[], None] | None = None,
    *,
    size_of: Callable[[T], int] = lambda _: 0,
    most_bytes: float = math.inf,
) -> Iterator[Iterator[T]]:
    """Iterates over `items` in a thread, at most `depth` of them or `most_bytes` ahead, in order.

    `size_of` tells an item's bytes. What `items` raises comes out where its next item would;
    `waiting` is called now and then while there is none, and may raise too. The thread ends with
    the block.
    """
    buffer: ReorderBuffer[T] = ReorderBuffer(depth, most_bytes)

    def work() -> None:
        try:
            for item in items:
                number = buffer.enter(1, size_of(item))
                if number is None:
                    return
                buffer.put(number, item)
        except BaseException as error:
            buffer.end(error)
        else:
            buffer.end()
        finally:
            # A generator lets go of its files here, in the thread that it runs in.
            if isinstance(items, Generator):
                items.close()

    thread = threading.Thread(target=work, name="prefetch", daemon=True)
    thread.start()
    try:
        yield buffer.items(waiting)
    finally:
        buffer.close()
        thread.join()
