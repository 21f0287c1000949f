"""What the tests of tars and pipes share: tars of real pictures, and real processes in a row."""

from __future__ import annotations

import fcntl
import io
import os
import signal
import struct
import sys
import tarfile
import termios
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from harness.warm import SERVER, warm_server
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


def run_words(words: list[str], stdin: Connection, stdout: Connection, log: str) -> None:
    """A command line in a process of its own, with these for standard streams."""
    with Path(log).open("wb") as err:
        for source, target in ((stdin.fileno(), 0), (stdout.fileno(), 1), (err.fileno(), 2)):
            os.dup2(source, target)
    stdin.close()
    stdout.close()
    sys.stdin, sys.stdout = os.fdopen(0), os.fdopen(1, "w")
    sys.stderr = os.fdopen(2, "w", buffering=1)
    torch.set_num_threads(1)
    code = main(words)
    sys.stdout.flush()
    os._exit(code)


def catches(pid: int, number: int) -> bool:
    """Whether a process has a handler of its own for a signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    mask = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(mask, 16) >> (number - 1) & 1)


def unread(pipe: int) -> int:
    """How many bytes lie in a pipe."""
    return struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))[0]


class Forked:
    """A command line in a real process with real pipes and signals, begun in no time.

    The last steps of a process (what a new interpreter does at its end) are not in it.
    """

    def __init__(self, *words: object, log: Path) -> None:
        warm_server()
        self.log = log
        read_end, self._input = SERVER.Pipe(duplex=False)
        self._output, write_end = SERVER.Pipe(duplex=False)
        given = (list(map(str, words)), read_end, write_end, str(log))
        self._process = SERVER.Process(target=run_words, args=given)
        self._process.start()
        read_end.close()
        write_end.close()
        self.input, self.output = os.dup(self._input.fileno()), os.dup(self._output.fileno())
        self._input.close()
        self._output.close()
        self.pid: int = self._process.pid or 0
        self._giver: threading.Thread | None = None

    def give(self, data: bytes) -> None:
        """Writes to its standard input, as long as it is there."""
        view = memoryview(data)
        with suppress(BrokenPipeError):
            while view:
                view = view[os.write(self.input, view) :]

    def give_beside(self, data: bytes) -> None:
        """`give` in a thread, for more than the pipe holds; `wait` sees its end too."""
        self._giver = threading.Thread(target=self.give, args=(data,))
        self._giver.start()

    def finish(self, data: bytes) -> bytes:
        """Gives the last of its input and takes all of its output, at once: both pipes may fill."""

        def give() -> None:
            self.give(data)
            self.end()

        giver = threading.Thread(target=give)
        giver.start()
        output = self.take(10**9)
        giver.join()
        return output

    def settle(self, seconds: float = 60.0) -> None:
        """Waits until it minds SIGTERM itself and has read all that it was given."""
        until = time.monotonic() + seconds
        while not (catches(self.pid, signal.SIGTERM) and unread(self.input) == 0):
            assert time.monotonic() < until, self.stderr
            time.sleep(0.01)

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
        self._process.join(seconds)
        code = self._process.exitcode
        if code is None:
            self._process.kill()
            raise AssertionError(f"still running after {seconds} seconds: {self.stderr}")
        if self._giver is not None:
            self._giver.join(seconds)
        return code

    @property
    def stderr(self) -> str:
        """What it said on standard error so far."""
        return self.log.read_text()
