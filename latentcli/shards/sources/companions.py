"""Finds and reads what belongs to picture and video files: captions and other fields.

For a/b/1.jpg these are a/b/1.txt or 1.caption (the caption), a/b/1.json (fields), and its row in
files of metadata (metadata_formats.py) in a/b or a folder above, up to the root of its source. Of
captions, and of fields of one name, the first in this order is taken; the nearest folder is first.
"""

from __future__ import annotations

import posixpath
from array import array
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from latentcli.core.caption_counts import CaptionCounts
from latentcli.core.field_values import Refused
from latentcli.core.fields import DOCUMENT, CaptionRule, Gathered
from latentcli.shards.sources.file_list import Files
from latentcli.shards.sources.folder_listing import (
    Companion,
    StemStamps,
    companions,
    metadata_of,
)
from latentcli.shards.sources.metadata_formats import METADATA
from latentcli.shards.sources.metadata_index import Hashes, hash_of, unread
from latentcli.shards.sources.near_folder import NearFolder, add_file, add_row, near_folder
from latentcli.shards.sources.remote import is_web

READERS = 8
"""Threads that read small files."""
AT_ONCE = 32
"""Inputs whose files a thread reads one after the other before it asks for more."""
OPEN_FOLDERS = 16
"""Folders whose metadata, and whose listing where they are remote, are kept at hand."""

_VERSION = 1
"""Raised where the same files are to give other fields: all stamps change with it."""


class Stamped(NamedTuple):
    """What belongs to the inputs of a job, without having read it."""

    stamps: array[int]
    """int64 per input: it changes with whatever gives the input fields; 0 where nothing does."""
    counts: CaptionCounts
    """Flaws of metadata files, and their rows that are of no input."""


class Nearest(NamedTuple):
    """Where what belongs to the inputs of a folder is looked for."""

    refused: Refused | None = None
    """Why nothing can be."""
    folders: Sequence[NearFolder] = ()
    """The folder and those above it, itself first."""
    suffixes: Sequence[str] = ()
    """Of the files beside the inputs."""

    @property
    def holds_any(self) -> bool:
        """Whether there may be anything to read."""
        return bool(self.suffixes) or any(near.metadata for near in self.folders)


class Companions:
    """Finds what belongs to inputs below the roots of their sources, by a rule."""

    def __init__(self, roots: Iterable[str], rule: CaptionRule) -> None:
        self._roots = frozenset(root.rstrip("/") or "/" for root in roots)
        self._rule = rule
        self._suffixes = (*rule.suffixes, DOCUMENT)
        self._salt = np.uint64(hash_of(repr((_VERSION, rule)).encode()))
        self._at_hand: OrderedDict[str, NearFolder] = OrderedDict()

    def __reduce__(self) -> tuple[type, tuple[frozenset[str], CaptionRule]]:
        return type(self), (self._roots, self._rule)

    def stamps(self, files: Files) -> Stamped:
        """Lists every folder of the inputs once; of files, only those of metadata are read.

        What may not be listed or read counts as unreadable, and gives nothing. StoreError where
        it cannot be for another reason.
        """
        stamps: Hashes = np.zeros(len(files), np.uint64)
        counts = CaptionCounts()
        above: list[NearFolder] = []
        for folder, places in _by_folder(files.paths):
            paths = [files.paths[i] for i in places]
            chain = self._chain(folder)
            while above and above[-1].folder not in chain:
                self._close(above.pop(), counts)
            names: list[str] = []
            beside = StemStamps(self._listed(folder, names, counts), self._suffixes)
            for name in chain[len(above) :]:
                above.append(NearFolder(name, names if name == folder else metadata_of(name)))
            stamps[places] = self._stamped(paths, beside, above[::-1])
        while above:
            self._close(above.pop(), counts)
        return Stamped(array("q", stamps.view(np.int64).tobytes()), counts)

    def _chain(self, folder: str) -> list[str]:
        """The folders from the outermost root down to this one; this one where no root holds it."""
        ends = [at for at, letter in enumerate(folder) if letter == "/"]
        names = [*(folder[:at] or "/" for at in ends), folder] if folder != "/" else [folder]
        top = (at for at, name in enumerate(names) if name in self._roots)
        return names[next(top, len(names) - 1) :]

    def _listed(
        self, folder: str, metadata: list[str], counts: CaptionCounts
    ) -> Iterator[Companion]:
        try:
            yield from companions(folder, self._suffixes, metadata)
        except PermissionError as error:
            counts.count("unreadable", f"{folder}: {error.strerror}")
        except OSError as error:
            raise unread(folder, error) from error

    def _stamped(
        self,
        paths: Sequence[str],
        beside: StemStamps,
        nearest: Sequence[NearFolder],
    ) -> Hashes:
        """Stamps of the inputs of one folder; the metadata of that folder comes first."""
        there, total = beside.find([_stem(path) for path in paths] if len(beside) else paths)
        for level, near in enumerate(nearest):
            for order, index in near.metadata:
                rows = index.find(paths)
                found = rows >= 0
                # Odd factors, so that two rows that change places are noticed.
                factor = np.uint64(2 * (level * len(METADATA) + order) + 3)
                total[found] += index.stamps[rows[found]] * factor
                there |= found
        total = np.where(there, total ^ self._salt, np.uint64(0))
        total[there & (total == 0)] = 1
        return total

    def read(self, paths: Sequence[str]) -> list[Gathered]:
        """What belongs to these inputs, read by a few threads.

        What cannot be used, or may not be read, is a problem of its input. StoreError where
        something cannot be read for another reason.
        """
        near: dict[str, Nearest] = {}
        for folder, asked in sorted(Counter(map(_folder_of, paths)).items()):
            near[folder] = self._nearest(folder, asked)

        def gather(some: Sequence[str]) -> list[Gathered]:
            return [self._gather(path, near[_folder_of(path)]) for path in some]

        if not any(where.holds_any for where in near.values()):
            return gather(paths)
        with ThreadPoolExecutor(READERS, thread_name_prefix="latentcli-captions") as pool:
            size = min(AT_ONCE, -(-len(paths) // READERS)) or 1
            some = [paths[i : i + size] for i in range(0, len(paths), size)]
            return [found for each in pool.map(gather, some) for found in each]

    def _gather(self, path: str, nearest: Nearest) -> Gathered:
        found = Gathered(self._rule)
        if nearest.refused is not None:
            found.refuse(_folder_of(path), nearest.refused)
        stem = _stem(path) if nearest.suffixes else ""
        for suffix in nearest.suffixes:
            if suffix == DOCUMENT or found.caption is None:
                add_file(found, nearest.folders[0], f"{stem}.{suffix}", suffix == DOCUMENT)
        for near in nearest.folders:
            for _, index in near.metadata:
                add_row(found, index, path)
        return found

    def _nearest(self, folder: str, asked: int) -> Nearest:
        """What belongs to inputs of a folder, of which so many are asked for, lies here."""
        if is_web(folder):
            return Nearest()
        try:
            near = [self._near(name, name == folder) for name in reversed(self._chain(folder))]
        except PermissionError as error:
            return Nearest(Refused("unreadable", f"it may not be listed: {error.strerror}"))
        except OSError as error:
            raise unread(folder, error) from error
        return Nearest(None, near, near[0].suffixes(self._suffixes, asked))

    def _near(self, folder: str, with_files: bool) -> NearFolder:
        known = self._at_hand.get(folder)
        if known is None or (with_files and not known.has_files):
            known = near_folder(folder, self._suffixes if with_files else ())
        self._remember(known)
        return known

    def _remember(self, near: NearFolder) -> None:
        self._at_hand[near.folder] = near
        self._at_hand.move_to_end(near.folder)
        if len(self._at_hand) > OPEN_FOLDERS:
            self._at_hand.popitem(last=False)

    def _close(self, near: NearFolder, counts: CaptionCounts) -> None:
        """Counts what no input of a folder, or below it, has asked for."""
        for _, index in near.metadata:
            index.count_unused(counts)
        self._remember(near)


def _by_folder(paths: Sequence[str]) -> Iterator[tuple[str, npt.NDArray[np.int64]]]:
    """Folders and the places of their inputs, every folder right behind those above it."""
    numbers: dict[str, int] = {}
    own = array("q", (numbers.setdefault(_folder_of(path), len(numbers)) for path in paths))
    order = np.argsort(own, kind="stable")
    ends = np.cumsum(np.bincount(own, minlength=len(numbers)))
    for folder in sorted(numbers, key=lambda folder: folder.split("/")):
        end, number = int(ends[numbers[folder]]), numbers[folder]
        begin = int(ends[number - 1]) if number else 0
        yield folder, order[begin:end]


def _folder_of(path: str) -> str:
    return path.rpartition("/")[0] or "/"


def _stem(path: str) -> str:
    """A file's name without its last suffix, as trainers understand it."""
    return posixpath.splitext(path.rpartition("/")[2])[0]
