"""Opens the bytes of a tar: of a file, a URL, a command or standard input."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass

from latentcli.jobs.runtime.stdio import STDIN, Incoming, go_on, open_stdin
from latentcli.shards.sources.expand import PIPE
from latentcli.shards.storage.byte_stream import open_stream
from latentcli.shards.storage.paths import path_of
from latentcli.shards.tar.read import ByteStream

END_SECONDS = 2.0
"""What a command that is no longer needed gets to end by itself."""


@contextmanager
def open_tar(source: str, check: Callable[[], None] = go_on) -> Iterator[ByteStream]:
    """The bytes of a tar: a file, a URL, a command's output (pipe:), or standard input (-).

    What cannot be opened is a stream whose first read fails. `check` is called while a pipe has
    nothing to give, and may raise. UsageError where standard input cannot be read.
    """
    if source == STDIN:
        with open_stdin(check) as stdin:
            yield stdin
    elif source.startswith(PIPE):
        with open_command(source.removeprefix(PIPE), check) as output:
            yield output
    else:
        try:
            stream = open_stream(path_of(source))
        except OSError as error:
            yield Unreadable(error)
            return
        with closing(stream):
            yield stream


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


class Digesting:
    """A stream that knows how much was read of it, and with `hashing` the digest of that."""

    def __init__(self, stream: ByteStream, *, hashing: bool = True) -> None:
        self._stream, self._hashing = stream, hashing
        self._sha256 = hashlib.sha256()
        self.bytes = 0
        """Read so far."""

    def read(self, size: int, /) -> bytes:
        """As the stream's."""
        data = self._stream.read(size)
        if self._hashing:
            self._sha256.update(data)
        self.bytes += len(data)
        return data

    def digest_of_all(self) -> str | None:
        """Hexadecimal, of what was read and what is left; None where that cannot be read."""
        try:
            while self.read(2**20):
                pass
        except (OSError, EOFError):
            return None
        return self._sha256.hexdigest()
