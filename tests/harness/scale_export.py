"""Exports a store of many small latents, whole and killed, and compares it with copying the files.

Each export is a process of its own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from harness.made_up_stores import made, noise, write_store

JOURNAL = ".latentcli-export.jsonl"
LATENTS = 64
"""Different latents that a store is made of."""
DEADLINE = 600


@dataclass(frozen=True, slots=True)
class Used:
    """What an export took."""

    document: dict[str, Any]
    seconds: float
    peak: float
    """MiB that the process held at most."""


@dataclass(frozen=True, slots=True)
class Turn:
    """An export, and a copy of its files right after it."""

    export: Used
    copy_seconds: float
    """Until cp has ended: the files are in memory then."""
    disk_seconds: float
    """Until they are on the disk, as those of an export are."""

    @property
    def rate(self) -> float:
        """The export's rate as a part of that of a copy to the disk."""
        return self.disk_seconds / self.export.seconds


def make_store(path: Path, count: int, side: int = 32, per_shard: int = 1000) -> Path:
    """A store of `count` latents of SD's space [4, side, side], in ten folders with a class."""
    some = noise(LATENTS, 4, side, side, dtype=torch.bfloat16)
    samples = [
        made(f"class{i % 10}/picture{i:07d}", some[i % LATENTS], fields={"cls": i % 10})
        for i in range(count)
    ]
    size = {"resize": "crop", "size": [side * 8, side * 8], "divisor": 8}
    return write_store(path, samples, "sd1", per_shard=per_shard, preprocess=size)


def command(store: Path, to: str, out: Path, *more: str) -> list[str]:
    """The command line of an export."""
    names = [sys.executable, "-m", "latentcli", "export", str(store), "--to", to]
    return [*names, "-o", str(out), "--json", "--quiet", *more]


def export(store: Path, to: str, out: Path, *more: str) -> Used:
    """Runs an export to its end; RuntimeError where it fails."""
    return ran(command(store, to, out, *more))


def check(store: Path, out: Path) -> Used:
    """Compares an export with its store; RuntimeError where it differs."""
    names = [sys.executable, "-m", "latentcli", "export", str(store), "--json", "--quiet"]
    return ran([*names, "--check", str(out)])


def ran(words: list[str]) -> Used:
    """The document of a command, and what it took."""
    began = time.perf_counter()
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        text = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(words)} ended with {process.returncode}")
    seconds = time.perf_counter() - began
    return Used(json.loads(text), seconds, usage.ru_maxrss / 1024)


def killed(store: Path, to: str, out: Path, steps: int, *more: str) -> int:
    """Kills an export once so many of its steps are noted; how many there were then."""
    with subprocess.Popen(
        command(store, to, out, *more), stdout=subprocess.DEVNULL, start_new_session=True
    ) as process:
        end = time.monotonic() + DEADLINE
        while process.poll() is None and steps_done(out) < steps and time.monotonic() < end:
            time.sleep(0.01)
        done = process.poll() is None
        os.killpg(process.pid, signal.SIGKILL)
    if not done:
        raise RuntimeError("the export ended before it could be killed")
    return steps_done(out)


def steps_done(out: Path) -> int:
    """Steps that the journal of an export notes."""
    try:
        return (out / JOURNAL).read_bytes().count(b"\n") - 1
    except OSError:
        return 0


def turn(store: Path, to: str, folder: Path, *more: str) -> Turn:
    """An export to a new folder and a copy of it.

    Both stay: a disk that has just deleted files makes new ones several times slower.
    """
    name = f"turn{len(list(folder.iterdir()))}"
    os.sync()
    used = export(store, to, folder / name, *more)
    os.sync()
    began = time.perf_counter()
    subprocess.run(["cp", "-r", str(folder / name), str(folder / f"{name}.copy")], check=True)
    copied = time.perf_counter() - began
    os.sync()
    return Turn(used, copied, time.perf_counter() - began)
