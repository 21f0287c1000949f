"""Holds an encode job at a moment of its own: its source is a pipe that a test fills."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.fuzz_files import good_pictures
from harness.tars import tar

DATA = tar((f"{n}.png", good_pictures()["rgb.png"]) for n in range(6))


def words_for(source: str, store: str, model: str, *more: str) -> list[str]:
    """The command of a job on the CPU, whose sources may be pipes."""
    return [
        *("encode", source, "--output", store, "--model", model, "--device", "cpu"),
        *("--allow-pipe", "--workers", "0", "--no-self-check", "--quiet", *more),
    ]


@dataclass
class Waiting:
    """A job in a process of its own that has its store, and waits for what a pipe will bring."""

    process: subprocess.Popen[str]
    words: list[str]
    pipe: int = -1

    def begins(self, pipe: Path) -> bool:
        """Whether its command reads from the pipe by now; then the pipe's other end is ours."""
        try:
            self.pipe = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """The end of what the pipe brings."""
        if self.pipe >= 0:
            os.close(self.pipe)
        self.pipe = -1

    def finish(self) -> None:
        """Gives it its tar, and waits for its end."""
        os.set_blocking(self.pipe, True)
        with open(self.pipe, "wb", closefd=False) as file:
            file.write(DATA)
        self.close()
        _, errors = self.process.communicate(timeout=120)
        assert (self.process.returncode, errors) == (0, "")


def bare_environment() -> dict[str, str]:
    """One thread, and none of the caller's own settings."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("LATENTCLI_")}
    return kept | {"OMP_NUM_THREADS": "1"}


@contextmanager
def job_that_waits(
    folder: Path, store: str, model: str, more: Sequence[str] = ()
) -> Iterator[Waiting]:
    """Such a job; it and its command are ended at the end of the block.

    `more` are further words, sources among them: those before the pipe in order are read first.
    """
    pipe = folder / "pipe"
    os.mkfifo(pipe)
    words = words_for(f"pipe:cat {pipe}", store, model, *more)
    own = {name: value for name, value in os.environ.items() if name == "LATENTCLI_LEASE_SECONDS"}
    process = subprocess.Popen(
        [sys.executable, "-m", "latentcli", *words],
        stderr=subprocess.PIPE,
        text=True,
        env=bare_environment() | own,
    )
    job, end = Waiting(process, words), time.monotonic() + 120
    try:
        while not job.begins(pipe):
            assert process.poll() is None and time.monotonic() < end, "it does not begin"
            time.sleep(0.05)
        yield job
    finally:
        process.kill()
        job.close()
        process.communicate()
