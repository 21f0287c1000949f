"""Items in, the same items out, made by another thread a few ahead of who takes them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from queue import Empty, Full, Queue
from typing import Generic, TypeVar

T = TypeVar("T")

PATIENCE = 0.1
"""Seconds between two looks at whether anybody still takes the items."""


class _End(Generic[T]):
    """Stands behind the last item; with an error where the items broke off."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


@contextmanager
def prefetch(
    items: Iterable[T], depth: int, waiting: Callable[[], None] | None = None
) -> Iterator[Iterator[T]]:
    """Iterates over `items` in a thread, at most `depth` of them ahead, in order.

    What `items` raises comes out where its next item would; `waiting` is called now and then while
    there is none, and may raise too. The thread ends with the block.
    """
    queue: Queue[T | _End[T]] = Queue(depth)
    over = threading.Event()

    def put(entry: T | _End[T]) -> None:
        while not over.is_set():
            with suppress(Full):
                queue.put(entry, timeout=PATIENCE)
                return

    def get() -> T | _End[T]:
        while True:
            with suppress(Empty):
                return queue.get(timeout=PATIENCE)
            if waiting is not None:
                waiting()

    def work() -> None:
        try:
            for item in items:
                if over.is_set():
                    return
                put(item)
        except BaseException as error:
            put(_End(error))
        else:
            put(_End())

    def take() -> Iterator[T]:
        while not isinstance(entry := get(), _End):
            yield entry
        if entry.error is not None:
            raise entry.error

    thread = threading.Thread(target=work, name="prefetch", daemon=True)
    thread.start()
    try:
        yield take()
    finally:
        over.set()
        thread.join()
