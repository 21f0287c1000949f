"""Takes items before they are asked for, so that what each has begun goes on meanwhile."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def lookahead(items: Iterable[T], count: int) -> Iterator[T]:
    """The same items in order, each given when up to `count` of those after it have been taken."""
    taken: deque[T] = deque()
    for item in items:
        taken.append(item)
        if len(taken) > count:
            yield taken.popleft()
    while taken:
        yield taken.popleft()
