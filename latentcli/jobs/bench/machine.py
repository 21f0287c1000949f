"""Describes what a device's figures depend on: hardware, driver, clocks, load and switches."""

from __future__ import annotations

import contextlib
import os
import platform
from pathlib import Path
from typing import Any

import torch

from latentcli.jobs.inference.engine import Engine


def machine(engine: Engine) -> dict[str, Any]:
    """What stays the same through a run."""
    return {
        "device": engine.device_name,
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        **engine.accelerator.facts(),
    }


def state(engine: Engine) -> dict[str, Any]:
    """What changes: a GPU's clocks, and how many processes want the CPU (None where unknown)."""
    load = None
    with contextlib.suppress(OSError, AttributeError):
        load = round(os.getloadavg()[0], 2)
    return {"load": load, "clocks": engine.accelerator.clocks()}


def cpu_name() -> str:
    """The processor as the system calls it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name" and value.strip():
                return value.strip()
    return platform.processor() or platform.machine()
