"""Makes a great many names of a few files, and the commands that read them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

PER_FOLDER = 1000


def linked(folder: Path, files: Sequence[Path], count: int) -> Path:
    """A folder of so many names of a few files."""
    for start in range(0, count, PER_FOLDER):
        inner = folder / f"{start // PER_FOLDER:05d}"
        inner.mkdir(parents=True)
        for number in range(start, min(start + PER_FOLDER, count)):
            (inner / f"{number:08d}.jpg").hardlink_to(files[number % len(files)])
    return folder


def words(verb: str, names: Path, store: Path, model: str) -> tuple[str, ...]:
    """A command line."""
    return (
        *(sys.executable, "-m", "latentcli", verb, str(names), "-o", str(store)),
        *("--model", model, "--resize", "none", "--device", "cpu", "--workers", "2"),
        *("--batch-size", "64", "--no-self-check", "--json", "--quiet"),
    )
