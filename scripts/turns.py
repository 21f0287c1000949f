"""Takes turns between ways to do the same, and tells what the machine is that they ran on."""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_int8", "asimd", "bf16", "sve")
"""Of a processor, those that products of matrices are quick or slow by."""


@dataclass(frozen=True, slots=True)
class Used:
    """What a process took, with all that it started."""

    seconds: float
    cpu: float
    """Seconds of processor time."""
    output: str
    """What it wrote to standard output."""


def run(command: Sequence[str | Path], limit: float | None = None) -> Used:
    """Runs a command to its end; RuntimeError with its last words where that is no good one."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=limit, check=False
    )
    seconds = time.perf_counter() - begin
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))} failed:\n{done.stderr[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Used(seconds, cpu, done.stdout)


def in_turns(ways: Mapping[str, Callable[[], float]], turns: int) -> dict[str, list[float]]:
    """What each way gave in each turn; every other turn goes through them backwards."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(turns):
        for name in list(ways) if turn % 2 == 0 else reversed(list(ways)):
            found[name].append(ways[name]())
    return found


def ratio(slow: Sequence[float], quick: Sequence[float]) -> float:
    """Median over the turns of what one took over what the other took in the same turn."""
    return statistics.median(s / q for s, q in zip(slow, quick, strict=True))


def machine() -> dict[str, Any]:
    """Name, features, cores and load of this machine, and torch's version."""
    import torch

    from latentcli.jobs.bench.machine import cpu_name

    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    words = set(text.split())
    return {
        "cpu": cpu_name(),
        "features": [name for name in FEATURES if name in words],
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2),
        "torch": torch.__version__,
    }


def told(document: Mapping[str, Any], path: Path | None) -> None:
    """Writes a document as JSON into a file, where one was asked for."""
    if path is not None:
        path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
