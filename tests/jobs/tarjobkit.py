"""What the tests of tars and pipes share: tars of real pictures, and real processes in a row."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jobkit import environment
from PIL import Image
from safetensors.torch import load

from latentcli.cli.app import main

SIZES = ((64, 48), (48, 64), (64, 64), (80, 48))
Files = Iterable[tuple[str, bytes]]


def picture(number: int, size: tuple[int, int] | None = None, form: str = "PNG") -> bytes:
    """A small picture; its pixels depend on the number alone."""
    width, height = size or SIZES[number % len(SIZES)]
    y, x = np.mgrid[0:height, 0:width] / 16
    waves = [np.sin(x * (1 + number % 7) + number), np.cos(y + number / 3), np.sin(x + y)]
    pixels = ((np.stack(waves, axis=-1) + 1) * 127).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form)
    return file.getvalue()


def members(
    count: int, first: int = 0, size: tuple[int, int] | None = None, bad_every: int = 0
) -> list[tuple[str, bytes]]:
    """A picture, a caption and a document of each sample; some pictures are cut short."""
    found: list[tuple[str, bytes]] = []
    for number in range(first, first + count):
        data = picture(number, size)
        if bad_every and number % bad_every == bad_every - 1:
            data = data[: len(data) // 2]
        found += [
            (f"{number:04d}.png", data),
            (f"{number:04d}.txt", f"caption {number}\n".encode()),
            (f"{number:04d}.json", f'{{"number": {number}}}'.encode()),
        ]
    return found


def tar_bytes(files: Files) -> bytes:
    """A tar as Python's own writer makes it."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def make_tar(path: Path, files: Files) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tar_bytes(files))
    return path


def unpacked(files: Files, folder: Path) -> Path:
    """The same files in a folder."""
    for name, data in files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def read_tar(data: bytes) -> dict[str, bytes]:
    """Members by name, in their order; fails where a name comes twice."""
    found: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for info in tar:
            file = tar.extractfile(info)
            assert file is not None and info.name not in found, info.name
            found[info.name] = file.read()
    return found


def has_end(data: bytes) -> bool:
    """Whether a tar ends with its end mark and nothing behind it."""
    return len(data) % 512 == 0 and data.endswith(bytes(1024))


def latents_in(data: bytes) -> dict[str, torch.Tensor]:
    """By `<name>/<part>`, every tensor of a tar of latents."""
    suffix = ".latent.safetensors"
    return {
        f"{name.removesuffix(suffix)}/{part}": tensor
        for name, file in read_tar(data).items()
        if name.endswith(suffix)
        for part, tensor in load(file).items()
    }


def tar_store(store: Path) -> dict[str, torch.Tensor]:
    """All tensors of a store of tars, by the names of their members."""
    found: dict[str, torch.Tensor] = {}
    for shard in sorted((store / "shards").glob("*.tar")):
        found |= {f"{shard.stem}:{k}": v for k, v in latents_in(shard.read_bytes()).items()}
    return found


def command(*words: object) -> list[str]:
    """The command line as words."""
    return [sys.executable, "-m", "latentcli", *map(str, words)]


def piped(data: bytes | None, *words: object, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """A command of ours with these bytes on standard input."""
    return subprocess.run(
        command(*words), input=data, capture_output=True, env=environment(), timeout=120, **options
    )


def started(*words: object, **options: Any) -> subprocess.Popen[bytes]:
    """The same, still running, with pipes at all ends."""
    ends = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command(*words), env=environment(), **(ends | options))


def encode_words(model: str, *more: object, workers: int = 0) -> Sequence[object]:
    """`encode` with the settings of jobkit.encode, without sources and output."""
    settings = ("--model", model, "--device", "cpu", "--resize", "none", "--batch-size", 3)
    return (*settings, "--workers", workers, "--no-self-check", *more)


@dataclass(slots=True)
class Ends:
    """What a job in this process has for standard streams, while `standard_streams` lasts."""

    written: Path
    """What went to standard output."""

    @property
    def output(self) -> bytes:
        return self.written.read_bytes()


@contextmanager
def standard_streams(folder: Path, data: bytes | None = None) -> Iterator[Ends]:
    """Files for standard input and output of this process, below Python and in it."""
    folder.mkdir(parents=True, exist_ok=True)
    ends = Ends(folder / "stdout")
    (folder / "stdin").write_bytes(data or b"")
    before = sys.stdin, sys.stdout
    own = os.dup(1)
    with (folder / "stdin").open("rb") as incoming, ends.written.open("wb") as outgoing:
        os.dup2(outgoing.fileno(), 1)
        sys.stdin, sys.stdout = io.TextIOWrapper(incoming), os.fdopen(1, "w", closefd=False)
        try:
            yield ends
        finally:
            sys.stdout.flush()
            sys.stdin, sys.stdout = before
            os.dup2(own, 1)
            os.close(own)


class Forked:
    """A copy of this process that runs a command line, with real pipes and real signals.

    It saves the seconds that importing torch takes. The last steps of a process (what a new
    interpreter does at its end) are not in it.
    """

    def __init__(self, *words: object, stdin: int | None = None, log: Path) -> None:
        self.log = log
        read_end, self.input = (stdin, -1) if stdin is not None else os.pipe()
        self.output, write_end = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            for handle in (self.input, self.output):
                if handle >= 0:
                    os.close(handle)
            self._run(list(map(str, words)), read_end, write_end)
        os.close(write_end)
        if stdin is None:
            os.close(read_end)

    def _run(self, words: list[str], read_end: int, write_end: int) -> None:
        code = 99
        try:
            with self.log.open("wb") as log:
                for source, target in ((read_end, 0), (write_end, 1), (log.fileno(), 2)):
                    os.dup2(source, target)
            os.close(read_end)
            os.close(write_end)
            sys.stdin, sys.stdout = os.fdopen(0), os.fdopen(1, "w")
            sys.stderr = os.fdopen(2, "w", buffering=1)
            code = main(words)
            sys.stdout.flush()
        finally:
            os._exit(code)

    def give(self, data: bytes) -> None:
        """Writes to its standard input, as long as it is there."""
        view = memoryview(data)
        with suppress(BrokenPipeError):
            while view:
                view = view[os.write(self.input, view) :]

    def end(self) -> None:
        """Nothing more comes."""
        os.close(self.input)
        self.input = -1

    def take(self, size: int) -> bytes:
        """So many bytes of its standard output, or all that there are."""
        found = b""
        while len(found) < size and (data := os.read(self.output, size - len(found))):
            found += data
        return found

    def wait(self, seconds: float = 60.0) -> int:
        """Its exit code; it is killed where it takes longer."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.01)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        raise AssertionError(f"still running after {seconds} seconds: {self.talk}")

    @property
    def talk(self) -> str:
        """What it said on standard error so far."""
        return self.log.read_text()
