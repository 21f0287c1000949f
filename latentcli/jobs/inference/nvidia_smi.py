"""Asks nvidia-smi for a GPU's driver, clocks, power and temperature."""

from __future__ import annotations

import subprocess

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


def driver(uuid: str | None) -> str | None:
    """Version of the GPU's driver; None where nvidia-smi does not tell."""
    told = ask(uuid, ["driver_version"])
    return told[0] if told else None


def clocks(uuid: str | None) -> dict[str, float | None] | None:
    """Clocks now and at most, power limit and temperature; None where nvidia-smi does not tell."""
    told = ask(uuid, list(CLOCKS.values()))
    return None if told is None else dict(zip(CLOCKS, map(number, told), strict=True))


def number(text: str) -> float | None:
    """1980, or None for [N/A]."""
    try:
        return float(text)
    except ValueError:
        return None


def ask(uuid: str | None, fields: list[str]) -> list[str] | None:
    """nvidia-smi's answers for this very GPU, which torch may count otherwise than it does."""
    if uuid is None:
        return None
    try:
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
    except (OSError, subprocess.SubprocessError):
        return None
    return answers(ran.stdout, len(fields))


def answers(text: str, count: int) -> list[str] | None:
    """The fields of nvidia-smi's one line; None where there are not `count` of them."""
    found = [part.strip() for part in text.strip().splitlines()[0].split(",")] if text else []
    return found if len(found) == count else None
