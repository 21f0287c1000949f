"""Keeps a few integers that a process and its workers see and set together."""

from __future__ import annotations

import torch


class SharedNumbers:
    """Integers in memory that is shared with the worker processes of a loader, zero at first.

    Each number is set and read as a whole; nothing else is synchronised. A copy that goes to a
    worker of a torch DataLoader is the same memory, however the worker is started. Any other copy
    has numbers of its own.
    """

    def __init__(self, count: int) -> None:
        self._numbers = torch.zeros(max(count, 1), dtype=torch.int64)
        self._numbers.share_memory_()  # type: ignore[no-untyped-call]

    def __getitem__(self, place: int) -> int:
        return int(self._numbers[place])

    def __setitem__(self, place: int, value: int) -> None:
        self._numbers[place] = value

    def clear(self) -> None:
        """Makes all of them zero."""
        self._numbers.zero_()

    def set_places(self) -> list[int]:
        """Places of the numbers that are not zero, ascending."""
        places: list[int] = self._numbers.nonzero().flatten().tolist()
        return places
