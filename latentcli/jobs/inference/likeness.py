"""Tells how far two outputs of a network are from each other, and whether rounding explains it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far an output may be from its reference."""

    rms: float
    """RMS of the difference over RMS of the reference."""
    largest: float
    """Largest difference over the reference's largest value."""


TOLERANCES = {"fp32": Tolerance(1e-4, 1e-3), "bf16": Tolerance(0.05, 0.25)}
"""By dtype, compiled or not. Measured with random weights: 4e-6 in fp32, 0.02 in bf16 (FLUX.2)."""


def distances(found: Tensor, expected: Tensor) -> tuple[float, float]:
    """(RMS of the difference over that of the reference, largest one over its largest value)."""
    difference = found.float() - expected.float()
    rms = difference.square().mean().sqrt() / expected.float().square().mean().sqrt()
    return float(rms), float(difference.abs().max() / expected.abs().max())


def unlike(found: Tensor, expected: Tensor, dtype: str) -> str | None:
    """What is wrong with an output beside the eager one of the same dtype and inputs, or None."""
    rms, largest = distances(found, expected)
    allowed = TOLERANCES[dtype]
    if rms <= allowed.rms and largest <= allowed.largest:
        return None
    return (
        f"is not that of the eager network: relative RMS {rms:.2g} ({allowed.rms:g} allowed),"
        f" largest difference {largest:.2g} of the largest value ({allowed.largest:g} allowed)"
    )
