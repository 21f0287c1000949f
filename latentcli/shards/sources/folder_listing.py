"""Lists what belongs to the pictures of a folder, in one listing, as arrays.

Names are looked up by their `hash`, which is another one in every process; stamps are the same.
"""

from __future__ import annotations

import os
import posixpath
from array import array
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from latentcli.shards.sources.metadata_formats import METADATA
from latentcli.shards.sources.metadata_index import Hashes, hash_of
from latentcli.shards.sources.remote import is_web, remote
from latentcli.shards.storage.paths import RemotePath, is_remote

NO_SIZE = -1
"""The storage does not tell it."""


class Companion(NamedTuple):
    """A file that may belong to a picture."""

    stem: str
    """What the picture's own name is in front of its suffix."""
    suffix: str
    size: int
    mtime_ns: int
    mode: int
    """Who may read it, as os.stat has it; 0 where that is not known."""


def companions(folder: str, suffixes: Sequence[str], metadata: list[str]) -> Iterator[Companion]:
    """Files of a folder that end in one of these suffixes; names of METADATA go into the list.

    A folder that is not there has none, and web servers list no folders. OSError where it cannot
    be listed.
    """
    endings = tuple(f".{suffix}" for suffix in suffixes)
    for name, *known in _entries(folder, (*endings, *METADATA)):
        if name in METADATA:
            metadata.append(name)
            continue
        for suffix, ending in zip(suffixes, endings, strict=True):
            if name.endswith(ending):
                yield Companion(name[: -len(ending)], suffix, *known)
                break


def metadata_of(folder: str) -> list[str]:
    """Names of METADATA in a folder, without listing it."""
    if is_web(folder):
        return []
    if is_remote(folder):
        return [name for name in METADATA if _is_there(remote(folder) / name)]
    return [name for name in METADATA if posixpath.exists(posixpath.join(folder, name))]


def _is_there(path: RemotePath) -> bool:
    try:
        return path.is_file()
    except PermissionError:
        # Who may not list a bucket gets this for what is not there.
        return False


def _entries(folder: str, endings: tuple[str, ...]) -> Iterator[tuple[str, int, int, int]]:
    """(name, size, mtime_ns, mode) of the files whose names end so."""
    if is_web(folder):
        return
    if is_remote(folder):
        try:
            listed = remote(folder).entries()
        except FileNotFoundError:
            return
        for path, found in listed:
            if found is not None and path.name.endswith(endings):
                yield path.name, found.st_size, found.st_mtime_ns, 0
        return
    try:
        scan = os.scandir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return
    with scan:
        for entry in scan:
            if entry.name.endswith(endings):
                try:
                    info = entry.stat()
                except OSError:
                    # A link that leads nowhere, or a file that has just been deleted.
                    continue
                yield entry.name, info.st_size, info.st_mtime_ns, info.st_mode


def _mixed(values: Hashes) -> Hashes:
    """The numbers with each of their bits spread over all 64 (the last steps of splitmix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


class Sizes:
    """Sizes of the companions of a folder by name: 16 bytes a file."""

    def __init__(self, found: Iterator[Companion]) -> None:
        names, sizes = array("q"), array("q")
        for stem, suffix, size, *_ in found:
            names.append(hash(f"{stem}.{suffix}"))
            sizes.append(size)
        order = np.argsort(np.array(names, np.int64))
        self._names = np.array(names, np.int64)[order]
        self._sizes = np.array(sizes, np.int64)[order]

    def get(self, name: str) -> int | None:
        """The size of a file, NO_SIZE where it is not known; None where there is no such file."""
        at = int(np.searchsorted(self._names, hash(name)))
        if at == len(self._names) or self._names[at] != hash(name):
            return None
        return int(self._sizes[at])


class StemStamps:
    """What the companions of a folder come to by stem: 16 bytes a stem."""

    def __init__(self, found: Iterator[Companion], suffixes: Sequence[str]) -> None:
        kinds = {suffix: hash_of(suffix.encode()) for suffix in suffixes}
        stems, kind, numbers = array("q"), array("Q"), array("q")
        for stem, suffix, size, mtime_ns, mode in found:
            stems.append(hash(stem))
            # A text that could not be read, and now can, has no other size or time.
            kind.append(kinds[suffix] ^ mode)
            numbers.extend((size, mtime_ns))
        sizes, times = np.array(numbers, np.int64).astype(np.uint64).reshape(-1, 2).T
        stamps = _mixed(sizes + _mixed(times + np.array(kind, np.uint64)))
        order = np.argsort(np.array(stems, np.int64))
        self._stems, first = np.unique(np.array(stems, np.int64)[order], return_index=True)
        # Sums do not depend on the order of the listing.
        self._stamps: Hashes = np.add.reduceat(stamps[order], first) if len(first) else stamps

    def __len__(self) -> int:
        return len(self._stems)

    def find(self, stems: Sequence[str]) -> tuple[npt.NDArray[np.bool_], Hashes]:
        """For each stem whether it has companions, and what they come to."""
        if not len(self):
            return np.zeros(len(stems), np.bool_), np.zeros(len(stems), np.uint64)
        wanted = np.fromiter(map(hash, stems), np.int64, len(stems))
        at = np.minimum(np.searchsorted(self._stems, wanted), len(self) - 1)
        there = self._stems[at] == wanted
        return there, np.where(there, self._stamps[at], np.uint64(0))
