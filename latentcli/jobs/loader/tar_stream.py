"""Opens the bytes of a tar: of a file, a URL, a command or standard input."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from latentcli.jobs.runtime.stdio import STDIN, Incoming, go_on, open_stdin
from latentcli.shards.sources.expand import PIPE
from latentcli.shards.storage.byte_stream import OpenStream, open_stream
from latentcli.shards.storage.decompress import compression_of
from latentcli.shards.storage.paths import AnyPath, path_of
from latentcli.shards.tar.read import ByteStream
from latentcli.shards.tar.reorder import OrderedTar, find_order

END_SECONDS = 2.0
"""What a command that is no longer needed gets to end by itself."""


@contextmanager
def open_tar(
    source: str,
    suffixes: frozenset[str],
    check: Callable[[], None] = go_on,
    *,
    hashing: bool = True,
) -> Iterator[PackedInput]:
    """The bytes of a tar: a file, a URL, a command's output (pipe:), or standard input (-).

    Those of a file whose samples (of media with these suffixes) are not in a row come in an order
    in which they are. What cannot be opened is a stream whose first read fails. `check` is called
    while a pipe has nothing to give, and may raise. UsageError where standard input cannot be read.
    """
    seen = Seen(hashing)
    if source == STDIN:
        with open_stdin(check) as stdin:
            yield PackedInput(Watched(stdin, seen), seen)
    elif source.startswith(PIPE):
        with open_command(source.removeprefix(PIPE), check) as output:
            yield PackedInput(Watched(output, seen), seen)
    else:
        with open_file(path_of(source), suffixes, seen) as found:
            yield found


@contextmanager
def open_file(path: AnyPath, suffixes: frozenset[str], seen: Seen) -> Iterator[PackedInput]:
    """A tar that is a file, here or remote."""
    spans = None
    if isinstance(path, Path) and compression_of(path.name) is None:
        spans = find_order(path, suffixes)
    try:
        if spans is not None:
            stream: OpenStream | BufferedReader = path.open("rb")
        else:
            stream = open_stream(path, seen=seen)
    except OSError as error:
        yield PackedInput(Unreadable(error), seen)
        return
    with closing(stream):
        if isinstance(stream, OpenStream):
            yield PackedInput(stream, seen)
        else:
            count = Seen(hashing=False)
            yield PackedInput(Watched(OrderedTar(stream, spans or ()), count), count, stream)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Stands for a tar that cannot be opened."""

    error: OSError

    def read(self, size: int, /) -> bytes:
        """Raises what opening it raised."""
        raise self.error


@contextmanager
def open_command(command: str, check: Callable[[], None] = go_on) -> Iterator[ByteStream]:
    """What a shell command writes; its processes end with the block."""
    process = subprocess.Popen(
        command,
        shell=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    with process.stdout:
        try:
            yield CommandOutput(process, Incoming(process.stdout.fileno(), check))
        finally:
            end_group(process)


def end_group(process: subprocess.Popen[bytes]) -> None:
    """Ends a command and all that it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(END_SECONDS)
            return


@dataclass(frozen=True, slots=True)
class CommandOutput:
    """The output of a process, whose failure is an error of reading it."""

    process: subprocess.Popen[bytes]
    stream: Incoming

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes; at the end, OSError where the command failed."""
        data = self.stream.read(size)
        if not data and (code := self.process.wait()):
            raise OSError(f"its command ended with exit code {code}")
        return data


class Seen:
    """Is shown the bytes of an input: how many, and with `hashing` their digest."""

    def __init__(self, hashing: bool = True) -> None:
        self._hashing = hashing
        self._sha256 = hashlib.sha256()
        self.bytes = 0

    def __call__(self, data: bytes) -> None:
        """Takes the next bytes in."""
        if self._hashing:
            self._sha256.update(data)
        self.bytes += len(data)

    def digest(self) -> str:
        """Hexadecimal."""
        return self._sha256.hexdigest()


@dataclass(frozen=True, slots=True)
class Watched:
    """A stream of which somebody is shown what is read."""

    stream: ByteStream
    seen: Seen

    def read(self, size: int, /) -> bytes:
        """As the stream's."""
        data = self.stream.read(size)
        self.seen(data)
        return data


@dataclass(frozen=True, slots=True)
class PackedInput:
    """The bytes of a packed input, and what is known of all of it."""

    stream: ByteStream
    seen: Seen
    """The input's own bytes, which may be compressed ones."""
    file: BufferedReader | None = None
    """The input, where its bytes come in another order."""

    def read(self, size: int, /) -> bytes:
        """As the stream's."""
        return self.stream.read(size)

    @property
    def taken(self) -> int:
        """Bytes of the input that were read so far."""
        return self.seen.bytes

    def digest(self) -> str | None:
        """Of all of the input, hexadecimal; None where it cannot be read to its end."""
        try:
            if self.file is not None:
                self.file.seek(0)
                return hashlib.file_digest(self.file, "sha256").hexdigest()
            while self.read(2**20):
                pass
        except (OSError, EOFError):
            return None
        return self.seen.digest()
