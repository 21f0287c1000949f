"""Pictures that hang or end the process that decodes them; importable by loader processes."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from latentcli.core.types import InputRow
from latentcli.images.codec import DecodePolicy
from latentcli.images.preprocess import PreprocessSpec
from latentcli.jobs.loader import fork_server
from latentcli.jobs.loader.prepare import Intake, Recipe
from latentcli.shards.store.input_list import InputList, write_inputs

ACTIONS: dict[str, Callable[[], object]] = {
    "sleep": lambda: time.sleep(1000),
    # As a codec that keeps Python's lock: no other thread of the process runs any more.
    "hold": lambda: ctypes.PyDLL(None).sleep(1000),
    "crash": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "exit": lambda: os._exit(3),
}


class Limit(int):
    """A limit on pixels that springs a trap at pictures of certain numbers of pixels."""

    traps: Mapping[int, str] = {}
    once: Path | None = None
    """Where it is set, the traps spring only while this file is not there."""

    def __lt__(self, pixels: int) -> bool:
        action = self.traps.get(pixels)
        if action is not None and not (self.once and self.once.exists()):
            if self.once:
                self.once.touch()
            ACTIONS[action]()
        return int.__lt__(self, pixels)


@dataclass(frozen=True)
class Bomb:
    """Ends the process that unpickles it."""

    def __reduce__(self) -> tuple[Callable[[int], object], tuple[int]]:
        return os._exit, (4,)


def pictures(folder: Path, count: int, first: int = 16) -> list[Path]:
    """PNGs of different sizes: number i is (first + i) x 16."""
    paths = []
    for i in range(count):
        paths.append(folder / f"{i:03d}.png")
        Image.new("RGB", (first + i, 16), (i % 256, 7, 9)).save(paths[-1])
    return paths


def intake(
    folder: Path,
    paths: list[Path],
    traps: Mapping[int, str] | None = None,
    once: Path | None = None,
    size: tuple[int, int] | None = None,
    per_unit: int = 10,
) -> Intake:
    """The frozen list of some pictures; traps are by the place of a picture in it."""
    limit = Limit(10**8)
    limit.traps = {(16 + place) * 16: action for place, action in (traps or {}).items()}
    limit.once = once
    rows = [InputRow(path.stem, str(path), i // per_unit) for i, path in enumerate(paths)]
    write_inputs(folder / "inputs.jsonl", rows)
    recipe = Recipe(DecodePolicy(max_pixels=limit), PreprocessSpec(size, 1))
    return Intake(InputList.open(folder / "inputs.jsonl"), recipe)


def processes() -> set[int]:
    """Loader processes of this process."""
    return set(fork_server.children())
