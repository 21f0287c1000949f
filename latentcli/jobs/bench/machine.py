"""A device in, what its figures depend on out: hardware, driver, clocks, load and switches."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

from latentcli.jobs.inference.engine import Engine

CLOCKS = {
    "sm_mhz": "clocks.sm",
    "sm_max_mhz": "clocks.max.sm",
    "memory_mhz": "clocks.mem",
    "memory_max_mhz": "clocks.max.mem",
    "power_limit_w": "power.limit",
    "power_w": "power.draw",
    "temperature_c": "temperature.gpu",
}
"""Key of the document to the field of nvidia-smi."""
PATIENCE = 10
"""Seconds that nvidia-smi may take."""


def machine(engine: Engine) -> dict[str, Any]:
    """What stays the same through a run."""
    cuda = engine.device.type == "cuda"
    return {
        "device": engine.device_name,
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda if cuda else None,
        "cudnn": torch.backends.cudnn.version() if cuda else None,  # type: ignore[no-untyped-call]
        "driver": driver(engine.device) if cuda else None,
        "flags": cuda_flags() if cuda else None,
    }


def state(engine: Engine) -> dict[str, Any]:
    """What changes: a GPU's clocks, and how many processes want the CPU (None where unknown)."""
    cuda = engine.device.type == "cuda"
    load = None
    with contextlib.suppress(OSError, AttributeError):
        load = round(os.getloadavg()[0], 2)
    return {"load": load, "clocks": clocks(engine.device) if cuda else None}


def cpu_name() -> str:
    """The processor as the system calls it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name" and value.strip():
                return value.strip()
    return platform.processor() or platform.machine()


def cuda_flags() -> dict[str, bool]:
    """The switches that `latentcli` sets for every job, so also for this one."""
    return {
        "matmul_tf32": torch.backends.cuda.matmul.allow_tf32,
        "cudnn_tf32": torch.backends.cudnn.allow_tf32,
        "cudnn_deterministic": torch.backends.cudnn.deterministic,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
    }


def driver(device: torch.device) -> str | None:
    """Version of the GPU's driver; None where nvidia-smi does not tell."""
    told = ask(device, ["driver_version"])
    return told[0] if told else None


def clocks(device: torch.device) -> dict[str, float | None] | None:
    """Clocks now and at most, power limit and temperature; None where nvidia-smi does not tell."""
    told = ask(device, list(CLOCKS.values()))
    return None if told is None else dict(zip(CLOCKS, map(number, told), strict=True))


def number(text: str) -> float | None:
    """1980, or None for [N/A]."""
    try:
        return float(text)
    except ValueError:
        return None


def ask(device: torch.device, fields: list[str]) -> list[str] | None:
    """nvidia-smi's answers for this very GPU, which CUDA may count otherwise than it does."""
    try:
        uuid = str(torch.cuda.get_device_properties(device).uuid)
        ran = subprocess.run(
            [
                *("nvidia-smi", f"--id=GPU-{uuid.removeprefix('GPU-')}"),
                *(f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"),
            ],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=True,
        )
    except (OSError, subprocess.SubprocessError, AttributeError, RuntimeError, AssertionError):
        return None
    return answers(ran.stdout, len(fields))


def answers(text: str, count: int) -> list[str] | None:
    """The fields of nvidia-smi's one line; None where there are not `count` of them."""
    found = [part.strip() for part in text.strip().splitlines()[0].split(",")] if text else []
    return found if len(found) == count else None
