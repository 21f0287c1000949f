"""Reads the first and last bytes of files, and tells pictures by them where names do not."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

from latentcli.shards.sources.file_list import Files
from latentcli.shards.sources.left_out import NO_SUFFIX, LeftOut
from latentcli.shards.storage.byte_stream import without_waiting
from latentcli.shards.storage.paths import RemotePath, path_of

HEAD = 4096
"""Bytes that are read of a file."""
LOCAL_LIMIT, REMOTE_LIMIT = 50_000, 1_000
"""Of more files of one suffix, all are opened only if one of a sample is a picture."""
SAMPLE = 256
"""Files of such a sample, evenly spread."""

_AT_ONCE, _FEW = 16, 4
_BLOCK = 4096

Result = TypeVar("Result")


@dataclass(slots=True)
class Doubtful:
    """Files whose names do not say whether they are pictures."""

    by_suffix: defaultdict[str, Files] = field(default_factory=lambda: defaultdict(Files))

    def add(self, suffix: str, path: str, size: int, mtime_ns: int) -> None:
        """One more file; the numbers are those of FoundInput."""
        self.by_suffix[suffix].add(path, size, mtime_ns)

    def pictures(
        self,
        told: Callable[[bytes], str | None],
        accepted: frozenset[str],
        unread: Collection[str],
        left_out: LeftOut,
        limit: int,
    ) -> Iterator[tuple[str, int, int]]:
        """Path, size and time of those that are pictures of an accepted suffix, by first bytes.

        The others are counted: under their suffix, or what they are where that is more than their
        suffix says. `unread` are the suffixes of pictures that cannot be read here.
        """
        for suffix, files in sorted(self.by_suffix.items()):
            if len(files) > limit and not any(map(told, heads(spread(files)))):
                left_out.add(suffix or NO_SUFFIX, number=len(files))
                left_out.unopened += len(files) - SAMPLE
                continue
            for i, kind in enumerate(map(told, heads(files))):
                if kind in accepted:
                    yield files.paths[i], files.sizes[i], files.times[i]
                else:
                    named = suffix if kind is None or suffix in unread else kind
                    left_out.add(named or NO_SUFFIX, files.paths[i])


def spread(files: Files) -> Files:
    """A sample, evenly spread."""
    return files.pick(i * len(files) // SAMPLE for i in range(SAMPLE))


def heads(files: Files) -> Iterator[bytes]:
    """The first bytes of each file, in order; none of one that cannot be read."""
    return at_once(head_of, files.paths, files.sizes)


def at_once(
    call: Callable[[str, int], Result], paths: Sequence[str], sizes: Sequence[int]
) -> Iterator[Result]:
    """The results of calls with path and size, in order; several of them wait at a time."""
    if len(paths) <= _FEW:
        yield from map(call, paths, sizes)
        return
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for start in range(0, len(paths), _BLOCK):
            part = slice(start, start + _BLOCK)
            yield from pool.map(call, paths[part], sizes[part])


def head_of(path: str, size: int = -1) -> bytes:
    """The first bytes of a file; none where it cannot be read. `size` is asked for if it is -1."""
    return _parts(path, size, tail=False)


def ends_of(path: str, size: int = -1) -> bytes:
    """The first bytes of a file and the last ones, of which there may be fewer between them."""
    return _parts(path, size, tail=True)


def _parts(path: str, size: int, *, tail: bool) -> bytes:
    where = path_of(path)
    with suppress(OSError, ValueError):
        return _remote(where, size, tail) if isinstance(where, RemotePath) else _local(path, tail)
    return b""


def _local(path: str, tail: bool) -> bytes:
    handle = without_waiting(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        head = os.pread(handle, HEAD, 0)
        if not tail or len(head) < HEAD:
            return head
        return head + os.pread(handle, HEAD, max(os.fstat(handle).st_size - HEAD, HEAD))
    finally:
        os.close(handle)


def _remote(path: RemotePath, size: int, tail: bool) -> bytes:
    size = path.stat().st_size if size < 0 else size
    head = path.read_range(0, min(size, HEAD))
    return head + path.read_range(max(size - HEAD, HEAD), size) if tail else head
