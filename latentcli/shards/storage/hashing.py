"""Hashes bytes in a thread of their own, behind whoever writes them."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

AT_ONCE = 4 * 2**20
"""Bytes that the thread gets together, so many that the hand-over counts for little. Before there
are so many there is no thread, and what is left over at the end is hashed by whoever asks for the
digest."""
BEHIND = 2
"""Times so many bytes that may wait for the thread."""


class HashingThread:
    """Context manager: the SHA-256 digest of bytes, which must stay as they are until its end."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()
        self._pool: ThreadPoolExecutor | None = None
        self._given: deque[Future[None]] = deque()
        self._next: list[memoryview] = []
        self._size = 0

    def add(self, piece: memoryview) -> None:
        """Takes the single bytes that come next; waits where too many wait already."""
        self._next.append(piece)
        self._size += len(piece)
        if self._size >= AT_ONCE:
            self._give()

    def hexdigest(self) -> str:
        """Of all that was added."""
        while self._given:
            self._given.popleft().result()
        self._hash(self._next)
        self._next = []
        return self._sha256.hexdigest()

    def _give(self) -> None:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="hash")
        if len(self._given) == BEHIND:
            self._given.popleft().result()
        self._given.append(self._pool.submit(self._hash, self._next))
        self._next, self._size = [], 0

    def _hash(self, pieces: Iterable[memoryview]) -> None:
        for piece in pieces:
            self._sha256.update(piece)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
