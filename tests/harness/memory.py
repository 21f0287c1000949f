"""Encodes few and many small pictures, and compares the peak memory of both jobs."""

from __future__ import annotations

import sys
from pathlib import Path

from harness.measure import Used, measure
from harness.toys import toy_pictures


def encode_command(pictures: Path, model: str, workers: int) -> tuple[str, ...]:
    """`latentcli encode` as it is run here."""
    return (
        *(sys.executable, "-m", "latentcli", "encode", str(pictures), "--model", model, "--quiet"),
        *("--resize", "none", "--workers", str(workers), "--no-self-check", "--device", "cpu"),
    )


def growth(small: Used, large: Used) -> float:
    """The larger of the two ratios."""
    return max(large.main / small.main, large.worker / max(small.worker, 1e-9))


def compare(folder: Path, model: str, counts: tuple[int, int], workers: int) -> tuple[Used, Used]:
    """Useds of both jobs; prints a line for each."""
    peaks = []
    for count in counts:
        pictures = toy_pictures(folder / f"pictures{count}", count, [(64, 64)])
        store = folder / f"store{count}"
        peak = measure((*encode_command(pictures, model, workers), "--output", str(store)))
        print(
            f"{count} pictures: main {peak.main:.1f} MiB, largest worker {peak.worker:.1f} MiB,"
            f" {peak.seconds:.1f} s",
            flush=True,
        )
        peaks.append(peak)
    return peaks[0], peaks[1]
