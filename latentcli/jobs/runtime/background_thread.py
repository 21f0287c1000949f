"""Runs calls in order on one other thread, so that they overlap with the model."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self


def nothing() -> None:
    """For a thread that needs nothing before it begins."""


class BackgroundThread:
    """Context manager: calls run one after the other, at most `depth` of them behind.

    An error comes out at the next `submit` or `check`, or at the end, and nothing submitted after
    it runs. All that was submitted before is finished on the way out, also where the block raises.
    """

    def __init__(
        self, depth: int, begin: Callable[[], None] = nothing, *, name: str = "background"
    ) -> None:
        """`begin` is called in the thread before anything else."""
        self._depth = depth
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name, initializer=begin)
        self._pending: deque[Future[None]] = deque()
        self._error: BaseException | None = None

    def submit(self, call: Callable[..., None], *args: object) -> None:
        """Queues a call; waits while the queue is full, and raises what an earlier call raised.

        One thread alone submits.
        """
        while self._pending and (self._pending[0].done() or len(self._pending) >= self._depth):
            self._pending.popleft().result()
        self._pending.append(self._pool.submit(self._run, call, args))

    def check(self) -> None:
        """Raises what an earlier call raised, and waits for none; any thread may ask."""
        if self._error is not None:
            raise self._error

    def _run(self, call: Callable[..., None], args: tuple[object, ...]) -> None:
        if self._error is not None:
            return
        try:
            call(*args)
        except BaseException as error:
            self._error = error
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._pool.shutdown(wait=True)
        while self._pending and kind is None:
            self._pending.popleft().result()
