"""Few and many small pictures encoded; the peak memory of both jobs and their ratio out.

The peak is the resident high-water mark that Linux keeps for each process, read until it ends: of
the main process, and of the largest loader process. Exit code 1 where either grows by more than
--limit.

    python scripts/memory_test.py
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kill_test import in_session, start, toy_model, toy_pictures
from measure import high_water


@dataclass(frozen=True, slots=True)
class Peak:
    """High-water marks in MiB."""

    main: float
    worker: float
    seconds: float


def worker_high_water(pid: int) -> float:
    """The same for a loader process; 0 while it is still a copy of its parent, not started yet."""
    try:
        started = b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return 0.0
    return high_water(pid) if started else 0.0


def measure(command: Sequence[str], store: Path) -> Peak:
    """Runs an encode job and watches it; RuntimeError where it fails."""
    begin = time.perf_counter()
    process = start(command, store)
    main = worker = 0.0
    while process.poll() is None:
        main = max(main, high_water(process.pid))
        worker = max(worker, *map(worker_high_water, in_session(process.pid)), 0.0)
        time.sleep(0.05)
    seconds = time.perf_counter() - begin
    _, errors = process.communicate()
    if process.returncode:
        raise RuntimeError(f"the job failed:\n{errors.decode()}")
    return Peak(main, worker, seconds)


def encode_command(pictures: Path, model: str, workers: int) -> tuple[str, ...]:
    """`latentcli encode` as it is run here."""
    return (
        *(sys.executable, "-m", "latentcli", "encode", str(pictures), "--model", model, "--quiet"),
        *("--resize", "none", "--workers", str(workers), "--no-self-check", "--device", "cpu"),
    )


def growth(small: Peak, large: Peak) -> float:
    """The larger of the two ratios."""
    return max(large.main / small.main, large.worker / max(small.worker, 1e-9))


def compare(folder: Path, model: str, counts: tuple[int, int], workers: int) -> tuple[Peak, Peak]:
    """Peaks of both jobs; prints a line for each."""
    peaks = []
    for count in counts:
        pictures = toy_pictures(folder / f"pictures{count}", count, [(64, 64)])
        peak = measure(encode_command(pictures, model, workers), folder / f"store{count}")
        print(
            f"{count} pictures: main {peak.main:.1f} MiB, largest worker {peak.worker:.1f} MiB,"
            f" {peak.seconds:.1f} s",
            flush=True,
        )
        peaks.append(peak)
    return peaks[0], peaks[1]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", help="default: a toy model with random weights")
    parser.add_argument("--small", type=int, default=2_000)
    parser.add_argument("--large", type=int, default=20_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--limit", type=float, default=1.15)
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="latentcli-memory-") as name:
        folder = Path(name)
        model = options.model or str(toy_model(folder / "model"))
        counts = (options.small, options.large)
        ratio = growth(*compare(folder, model, counts, options.workers))
    print(f"ratio {ratio:.3f}, at most {options.limit} is allowed")
    return int(ratio > options.limit)


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except (RuntimeError, subprocess.SubprocessError) as error:
        raise SystemExit(str(error)) from None
