"""Decides by seed, epoch and index what is drawn for a sample, in whichever process it is read."""

from __future__ import annotations

from typing import Self

import torch

_MASK = 2**64 - 1


class EpochIndex(int):
    """An index of a dataset that knows for which epoch it was drawn, and by which seed."""

    epoch: int
    seed: int

    def __new__(cls, index: int, epoch: int, seed: int) -> Self:
        self = super().__new__(cls, index)
        self.epoch, self.seed = epoch, seed
        return self

    def __reduce__(self) -> tuple[type[Self], tuple[int, int, int]]:
        return type(self), (int(self), self.epoch, self.seed)


class Draw:
    """The random choices of one access to one sample.

    They follow from a seed, an epoch and an index; without a seed they come from torch's own
    generator and are different each time.
    """

    def __init__(self, seed: int | None, epoch: int, index: int) -> None:
        self._seed, self._epoch, self._index = seed, epoch, index

    def coin(self) -> bool:
        """Heads or tails, each half of the time."""
        if self._seed is None:
            return bool(torch.rand(()) < 0.5)
        return bool(mixed(self._seed, self._epoch, self._index) & 1)

    def generator(self) -> torch.Generator | None:
        """What noise is drawn from; None is torch's own generator."""
        if self._seed is None:
            return None
        # Not the number that the coin came from: noise must not know of the flip.
        return torch.Generator().manual_seed(mixed(self._seed, self._epoch, self._index, 1))


def mixed(*numbers: int) -> int:
    """64 bits that stand for some integers, as if at random (the mixer of splitmix64)."""
    state = 0
    for number in numbers:
        state = (state + (number & _MASK) + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state
