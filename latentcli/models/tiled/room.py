"""Says how much memory one half of a model may take, and what a picture takes."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Room:
    """The memory of a device that an encoder, or a decoder, may take beside its weights.

    What a picture takes is counted in bytes per pixel, so whether it is computed whole follows from
    its size alone.
    """

    limit: int
    """Bytes."""
    whole: int
    """Bytes per pixel of a picture that is computed whole: the picture and the work on it."""
    beside: int
    """Bytes per pixel that pictures take beside the work of a network that computes in parts."""
    obstacle: str | None = None
    """Why the network does not compute in parts, as the end of a sentence; None where it does."""

    def pictures(self, height: int, width: int) -> int:
        """How many pictures may be computed whole at once; 0 where not even one may."""
        return self.limit // (self.whole * height * width)

    def fits(self, count: int, height: int, width: int) -> bool:
        """Whether so many pictures may be computed whole at once."""
        return count <= self.pictures(height, width)

    def left(self, height: int, width: int) -> int:
        """Bytes that the network's work on one picture may take in parts."""
        return self.limit - self.beside * height * width


class AboveLimit(torch.OutOfMemoryError):
    """Raised for what a room does not take, whatever the device has."""


def no_part_fits() -> AboveLimit:
    """The error for a picture of which not even the smallest part fits."""
    return AboveLimit("not even the smallest part of the picture fits")


def spans(length: int, parts: int) -> list[tuple[int, int]]:
    """First and one past the last of each part of a length, as equal as they can be."""
    return [(length * i // parts, length * (i + 1) // parts) for i in range(parts)]
