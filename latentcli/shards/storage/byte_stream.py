"""Reads the bytes of a large file in order, here or remote, and decompresses it."""

from __future__ import annotations

import errno
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Self

from latentcli.shards.storage.decompress import Decompressing, compression_of
from latentcli.shards.storage.paths import AnyPath, RemotePath

RANGE = 8 * 2**20
"""Bytes of a remote file that are asked for at once; twice as many are in memory at most."""


class OpenStream(ABC):
    """A source of bytes that goes forward only; a context manager that closes it."""

    @abstractmethod
    def read(self, size: int = -1, /) -> bytes:
        """`size` bytes, fewer only at the end; all that are left where it is negative.

        OSError in plain words where they cannot be had.
        """

    @abstractmethod
    def close(self) -> None:
        """Lets go of file, threads and memory."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_stream(
    path: AnyPath,
    size: int | None = None,
    start: int = 0,
    seen: Callable[[bytes], object] | None = None,
) -> OpenStream:
    """The bytes of a file from `start` on, decompressed first where its name says so.

    `size` is what the file had when it was listed: OSError where it has another now, and in the
    end where a remote file was changed in the meantime. `seen` is shown the file's own bytes as
    they are read. UsageError without the package that decompresses it.
    """
    compression = compression_of(path.name)
    begin = start if compression is None else 0
    raw: OpenStream
    if isinstance(path, RemotePath):
        raw = _RemoteStream(path, size, begin)
    else:
        raw = _LocalStream(path, size, begin)
    if seen is not None:
        raw = _Shown(raw, seen)
    if compression is None:
        return raw
    try:
        stream = _Decompressed(raw, Decompressing(compression, raw.read))
        stream.skip(start)
    except BaseException:
        raw.close()
        raise
    return stream


def _same_size(path: AnyPath, listed: int | None, now: int) -> None:
    if listed is not None and listed >= 0 and listed != now:
        raise OSError(
            errno.EIO, f"it has {now} bytes now and had {listed} when it was listed", str(path)
        )


def without_waiting(path: str, flags: int) -> int:
    """An opener for `open`: a pipe without a writer would block an ordinary one for ever."""
    return os.open(path, flags | os.O_NONBLOCK)


class _LocalStream(OpenStream):
    def __init__(self, path: Path, size: int | None, start: int) -> None:
        self._file = open(path, "rb", opener=without_waiting)  # noqa: SIM115
        try:
            info = os.fstat(self._file.fileno())
            if not stat.S_ISREG(info.st_mode):
                raise OSError(errno.EINVAL, "it is not a regular file", str(path))
            _same_size(path, size, info.st_size)
            self._file.seek(start)
        except BaseException:
            self._file.close()
            raise

    def read(self, size: int = -1, /) -> bytes:
        return self._file.read(size)

    def close(self) -> None:
        self._file.close()


class _RemoteStream(OpenStream):
    """Ranges of a remote file, the next one on its way while this one is used."""

    def __init__(self, path: RemotePath, size: int | None, start: int) -> None:
        self._path = path
        self._found = path.stat()
        _same_size(path, size, self._found.st_size)
        if self._found.st_size < 0:
            raise OSError(errno.ENOTSUP, "the server does not report its size", str(path))
        self._asked = start
        self._block = memoryview(b"")
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="latentcli-read-ahead")
        self._next: Future[bytes] | None = self._ask()

    def read(self, size: int = -1, /) -> bytes:
        return _collect(self._take, size)

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._next, self._block = None, memoryview(b"")

    def _take(self, most: int) -> bytes | memoryview:
        if not self._block:
            if self._next is None:
                return b""
            # Before the next range is asked for: two of them are the most in memory.
            self._block = memoryview(b"")
            self._block = memoryview(self._next.result())
            self._next = self._ask()
        part, self._block = self._block[:most], self._block[most:]
        return part

    def _ask(self) -> Future[bytes] | None:
        begin, end = self._asked, min(self._asked + RANGE, self._found.st_size)
        if begin >= end:
            if self._path.stat() != self._found:
                raise OSError(errno.EIO, "it was changed while it was read", str(self._path))
            return None
        self._asked = end
        return self._thread.submit(self._path.read_range, begin, end)


class _Shown(OpenStream):
    """A stream of which somebody is shown what is read."""

    def __init__(self, raw: OpenStream, seen: Callable[[bytes], object]) -> None:
        self._raw = raw
        self._seen = seen

    def read(self, size: int = -1, /) -> bytes:
        data = self._raw.read(size)
        self._seen(data)
        return data

    def close(self) -> None:
        self._raw.close()


class _Decompressed(OpenStream):
    """The content of a compressed stream."""

    def __init__(self, raw: OpenStream, inner: Decompressing) -> None:
        self._raw = raw
        self._inner = inner

    def read(self, size: int = -1, /) -> bytes:
        return _collect(self._inner.take, size)

    def skip(self, count: int) -> None:
        """Reads over some bytes; fewer where the stream ends before."""
        while count > 0 and (part := self._inner.take(min(count, RANGE))):
            count -= len(part)

    def close(self) -> None:
        self._raw.close()


def _collect(take: Callable[[int], bytes | memoryview], size: int) -> bytes:
    """What `take(most)` gives, until there is enough or it gives nothing."""
    parts, left = [], size
    while left and (part := take(RANGE if left < 0 else left)):
        parts.append(part)
        left -= len(part) if left > 0 else 0
    return bytes(parts[0]) if len(parts) == 1 else b"".join(parts)
