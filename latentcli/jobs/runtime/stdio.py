"""Opens standard input and output as streams of bytes that a job can abandon at any time."""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import stat
import sys
import termios
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from latentcli.core.errors import LatentCliError, UsageError
from latentcli.jobs.runtime.process import CLOSED

if TYPE_CHECKING:
    from latentcli.shards.storage.atomic_write import Bytes

STDIN = STDOUT = "-"
"""What stands for standard input among sources, and for standard output as an output."""
PATIENCE = 0.2
"""Seconds between two looks at whether the job still goes on, while there is nothing to do."""
LARGEST_READ = 2**20
LARGEST_WRITE = 2**20

_reserved: ContextVar[int | None] = ContextVar("reserved", default=None)
"""Standard output, where nothing else may write to it."""
_GONE = select.POLLERR | select.POLLHUP | select.POLLNVAL


def go_on() -> None:
    """The check of a job that nobody stops."""


class Incoming:
    """What comes through a pipe; `check` is called while nothing comes, and may raise."""

    def __init__(self, handle: int, check: Callable[[], None] = go_on) -> None:
        self._handle = handle
        self._check = check

    def read(self, size: int, /) -> bytes:
        """What is there, at most `size` bytes; waits for some, and is empty at the end."""
        while True:
            wait_for(self._handle, select.POLLIN, self._check)
            try:
                return os.read(self._handle, min(size, LARGEST_READ))
            except BlockingIOError:
                continue


def wait_for(handle: int, event: int, check: Callable[[], None]) -> None:
    """Waits until a handle can be read or written, or its other end is gone."""
    poll = select.poll()
    poll.register(handle, event)
    while not poll.poll(1000 * PATIENCE):
        check()


def check_stdin() -> None:
    """UsageError where standard input is closed or a terminal."""
    if 0 in CLOSED or sys.stdin is None or sys.stdin.closed:
        raise UsageError("Standard input is closed; - reads a tar stream from it.")
    if sys.stdin.isatty():
        raise UsageError(
            "- reads a tar stream from standard input, which is a terminal here; try"
            " cat a.tar | latentcli ..."
        )


@contextmanager
def open_stdin(check: Callable[[], None] = go_on) -> Iterator[Incoming]:
    """Standard input, for one reader; UsageError as `check_stdin`."""
    check_stdin()
    yield Incoming(sys.stdin.fileno(), check)


class Stdout:
    """Standard output for data alone: what others print goes to standard error meanwhile."""

    def __init__(self, handle: int, check: Callable[[], None] = go_on) -> None:
        self._handle = handle
        self._check = check
        self._mode = os.fstat(handle).st_mode
        self.bytes = 0
        """Written so far."""
        self.idle: Callable[[], None] = go_on
        """Writes what is ready; called by `check`."""

    def check(self) -> None:
        """For when there is nothing to do; raises what ends the job.

        That is a signal, or that nobody reads what it writes.
        """
        self._check()
        poll = select.poll()
        poll.register(self._handle, 0)
        if any(event & _GONE for _, event in poll.poll(0)):
            raise self._closed()
        self.idle()

    def write(self, chunks: Iterable[Bytes]) -> None:
        """Writes all of it; LatentCliError where the reader is gone or the disk is full."""
        try:
            for chunk in chunks:
                self._write(memoryview(chunk).cast("B"))
        except BrokenPipeError:
            raise self._closed() from None
        except OSError as error:
            raise LatentCliError(
                f"Standard output cannot be written: {error.strerror}, after {self.bytes:,} bytes."
            ) from error

    def _write(self, view: memoryview) -> None:
        while view:
            wait_for(self._handle, select.POLLOUT, self._check)
            try:
                written = os.write(self._handle, view[: self._room()])
            except BlockingIOError:
                continue
            self.bytes += written
            view = view[written:]

    def _room(self) -> int:
        """Bytes that can be written now without waiting, once there is room at all."""
        if stat.S_ISREG(self._mode):
            return LARGEST_WRITE
        if not stat.S_ISFIFO(self._mode):
            return select.PIPE_BUF
        waiting = bytearray(4)
        fcntl.ioctl(self._handle, termios.FIONREAD, waiting)
        # Of a pipe that is not empty, no more is known than that it takes so many bytes.
        empty = not any(waiting)
        return fcntl.fcntl(self._handle, fcntl.F_GETPIPE_SZ) if empty else select.PIPE_BUF

    def _closed(self) -> LatentCliError:
        return LatentCliError(
            f"The reader of standard output closed it after {self.bytes:,} bytes; the job stopped"
            " there."
        )


@contextmanager
def open_stdout(check: Callable[[], None] = go_on) -> Iterator[Stdout]:
    """Standard output; UsageError where it is closed or a terminal.

    Whatever anybody prints inside the block, libraries in C as well, goes to standard error. So
    does what was printed before and is not out yet.
    """
    handle = _reserved.get()
    if handle is not None:
        yield Stdout(handle, check)
        return
    with reserved_stdout(True):
        handle = _reserved.get()
        assert handle is not None
        yield Stdout(handle, check)


@contextmanager
def reserved_stdout(wanted: bool) -> Iterator[None]:
    """Keeps standard output free of all else for an `open_stdout` inside, if it is `wanted`.

    UsageError as that.
    """
    if not wanted:
        yield
        return
    if 1 in CLOSED or sys.stdout is None or sys.stdout.closed:
        raise UsageError("Standard output is closed; -o - writes a tar stream to it.")
    if os.isatty(1):
        raise UsageError(
            "-o - writes a tar stream to standard output, which is a terminal here; redirect it,"
            " or name a folder."
        )
    own = os.dup(1)
    os.dup2(2, 1)
    token = _reserved.set(own)
    try:
        yield
    finally:
        _reserved.reset(token)
        sys.stdout.flush()
        # Libraries in C keep what they print until their buffer is full.
        ctypes.CDLL(None).fflush(None)
        os.dup2(own, 1)
        os.close(own)


@contextmanager
def standard_ends(reads: bool, writes: bool, check: Callable[[], None]) -> Iterator[Stdout | None]:
    """The standard streams of a job, looked at before anything costly is done.

    Standard output where the job writes to it; UsageError as `check_stdin` and `open_stdout`.
    """
    if reads:
        check_stdin()
    if not writes:
        yield None
        return
    with open_stdout(check) as stdout:
        yield stdout
