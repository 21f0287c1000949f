"""Finds what stands out among a store's measured and expected figures, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

DEAD = 0.1
"""A channel with less than this part of the expected std carries nothing."""
WIDE = 2.5
"""A channel with more than so many times the expected std does not go with the others."""
SHIFTED = 1.0
"""A channel whose mean is more than so many expected stds away."""
WHOLE = (0.5, 2.0)
"""The std of all values, against the expected one."""
FAILED = 0.01
"""More than this part of the inputs that failed is worth a look: their pictures are missing."""
AGREES = 1e-4
"""Largest difference of two ways to count the same figures, in stds."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that stands out."""

    kind: str
    """damage, empty, missing, running, failed, dead, wide, shifted, not_finite, whole or record."""
    text: str
    """One plain sentence."""
    channel: int | None = None


def findings(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What stands out in the figures of a report, the worst first, as JSON."""
    checks = (_damage, _job, _not_finite, _channels, _whole, _record)
    return [asdict(item) for check in checks for item in check(report)]


def scale_of(report: Mapping[str, Any]) -> tuple[Sequence[float], Sequence[float]]:
    """(mean, std) [C] that each channel is compared with."""
    expected = report["expected"]
    if expected["mean"] is not None:
        return expected["mean"], expected["std"]
    count, whole = len(report["channels"]["mean"]), report["values"]
    return [whole["mean"]] * count, [whole["std"]] * count


def deviations(report: Mapping[str, Any]) -> list[float]:
    """How far each channel [C] is from what it is compared with; 0 is just as expected."""
    mean, std = (np.asarray(report["channels"][name]) for name in ("mean", "std"))
    if not mean.size:
        return []
    centre, scale = (np.asarray(values, dtype=np.float64) for values in scale_of(report))
    scale = np.maximum(scale, 1e-12)
    shift = np.abs(mean - centre) / scale
    spread = np.abs(np.log(np.maximum(std / scale, 1e-6)))
    return [float(value) for value in np.maximum(shift, spread)]


def _damage(report: Mapping[str, Any]) -> Iterator[Finding]:
    if report["damaged"]["count"]:
        number = report["damaged"]["count"]
        yield Finding(
            "damage",
            f"{number:,} part{'s' if number > 1 else ''} of the store cannot be read. latentcli"
            " verify --repair marks damaged shards, and the encode command encodes them again.",
        )
    if not report["samples_read"]:
        yield Finding("empty", "The store has no latent that can be read.")


def _job(report: Mapping[str, Any]) -> Iterator[Finding]:
    """What the job left out, or has not done yet."""
    there, failed, total = report["inputs"], report["failed"], report["told_inputs"]
    if report["status"] == "complete" and total is not None and there < total:
        yield Finding(
            "missing",
            f"{total - there:,} of the {total:,} inputs that the manifest counts are in no commit"
            " record or shard that can be read. latentcli verify names the units.",
        )
    if report["status"] == "running":
        yield Finding("running", "The job is not finished; these are the latents so far.")
    if failed > FAILED * there:
        yield Finding(
            "failed", f"{failed:,} of {there:,} inputs failed ({failed / there:.0%}): see Failures."
        )


def _not_finite(report: Mapping[str, Any]) -> Iterator[Finding]:
    for channel, count in enumerate(report["channels"]["not_finite"]):
        if count:
            yield Finding(
                "not_finite",
                f"Channel {channel} has {count:,} value{'s' if count > 1 else ''} that"
                f" {'are' if count > 1 else 'is'} NaN or infinite.",
                channel,
            )


def _channels(report: Mapping[str, Any]) -> Iterator[Finding]:
    mean, std = report["channels"]["mean"], report["channels"]["std"]
    if not mean:
        return
    for channel, (centre, scale) in enumerate(zip(*scale_of(report), strict=True)):
        there, wide = mean[channel], std[channel]
        if wide < DEAD * scale:
            text = (
                f"has a standard deviation of {wide:.4g} instead of about {scale:.3g}: it is dead"
            )
            yield Finding("dead", f"Channel {channel} {text}.", channel)
        if wide > WIDE * scale:
            text = f"has a standard deviation of {wide:.4g} instead of about {scale:.3g}"
            yield Finding("wide", f"Channel {channel} {text}.", channel)
        if abs(there - centre) > SHIFTED * scale:
            text = f"has a mean of {there:.4g} instead of about {centre:.3g}"
            yield Finding("shifted", f"Channel {channel} {text}.", channel)


def _whole(report: Mapping[str, Any]) -> Iterator[Finding]:
    expected, found = report["expected"]["whole_std"], report["values"]["std"]
    if expected is None or found is None:
        return
    if not WHOLE[0] <= found / expected <= WHOLE[1]:
        text = f"All values together have a standard deviation of {found:.4g}"
        yield Finding("whole", f"{text} instead of about {expected:.3g}.")


def _record(report: Mapping[str, Any]) -> Iterator[Finding]:
    """Where all samples were read, the figures must be those that were written beside them."""
    recorded, own = report["recorded"], report["channels"]
    if recorded is None or not own["mean"] or report["samples_read"] != report["samples"]:
        return
    if report["spoiled"] or report["clips"] or len(recorded["mean"]) != len(own["mean"]):
        return
    scale = np.maximum(np.asarray(own["std"]), 1e-6)
    away = max(
        float((np.abs(np.asarray(recorded[name]) - np.asarray(own[name])) / scale).max())
        for name in ("mean", "std")
    )
    if away > AGREES:
        yield Finding(
            "record",
            "The latents are not those that were written: their means and standard deviations"
            f" differ by up to {away:.3g} of a standard deviation from those in the commit"
            " records. latentcli verify looks at every file.",
        )
