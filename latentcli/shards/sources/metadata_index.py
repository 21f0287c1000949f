"""Finds a picture's row in a file of metadata without holding the rows."""

from __future__ import annotations

import codecs
import hashlib
import os
import posixpath
import stat
from array import array
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from latentcli.core.caption_counts import EXAMPLES, CaptionCounts
from latentcli.core.errors import StoreError
from latentcli.core.field_values import Refused
from latentcli.core.fields import Problem
from latentcli.shards.sources.metadata_formats import METADATA, MetadataFormat
from latentcli.shards.storage.byte_stream import RANGE, open_stream, without_waiting
from latentcli.shards.storage.paths import AnyPath, RemotePath, path_of, read_part

Hashes = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]

_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def hash_of(data: bytes) -> int:
    """64 bits that stand for some bytes, the same in every process."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def unread(path: object, error: OSError) -> Refused | StoreError:
    """Why a text is not taken: who may not read it has none, other trouble ends the job."""
    if isinstance(error, PermissionError | IsADirectoryError):
        return Refused("unreadable", error.strerror or str(error))
    return StoreError(
        f"{path} cannot be read: {error.strerror or error}. Run the same command again, or leave"
        " out the texts beside the pictures with --captions none."
    )


class MetadataIndex:
    """A file of metadata: 33 bytes a row, which are read where they are asked for.

    `flaws` counts what is wrong with the file and its rows. A file that may not be read has no
    rows; StoreError where it cannot be read for another reason. Names are looked up by their
    `hash`, which is another one in every process.
    """

    def __init__(self, folder: str, name: str) -> None:
        self.name, self.flaws = name, CaptionCounts()
        self._above = f"{folder.rstrip('/')}/"
        self._path = path_of(f"{self._above}{name}")
        self._copy: BinaryIO | None = None
        self.format: MetadataFormat = METADATA[name]()
        columns = _columns()
        try:
            self._read(*columns)
        except Refused as error:
            self.flaws.add_problems([Problem(error.kind, str(self._path), error.reason)])
            columns = _columns()
        names, stamps, begins, ends = (np.array(column) for column in columns)
        # Stable: of two rows of one picture the first is found.
        order = np.argsort(names, kind="stable")
        self._names: Places = names[order]
        self.stamps: Hashes = stamps[order]
        """What the bytes of each row come to."""
        self._begins, self._ends = begins[order], ends[order]
        self._used = np.zeros(len(order), np.bool_)

    def __len__(self) -> int:
        return len(self._names)

    def _read(
        self, names: array[int], stamps: array[int], begins: array[int], ends: array[int]
    ) -> None:
        file, is_copy = _opened(self._path)
        try:
            for number, entry in enumerate(self.format.entries(file), 1):
                if entry.flaw is not None:
                    where = f"{self._path}, row {number:,}"
                    self.flaws.add_problems([Problem(entry.flaw.kind, where, entry.flaw.reason)])
                for name in entry.names:
                    names.append(hash(self._relative(name)))
                    stamps.append(hash_of(entry.data))
                    begins.append(entry.begin)
                    ends.append(entry.begin + len(entry.data))
        finally:
            if is_copy:
                self._copy = file
            else:
                file.close()

    def _relative(self, name: str) -> str:
        """A picture's name as a path below the folder, where it is there."""
        return posixpath.normpath(name.replace("\\", "/").removeprefix(self._above))

    def find(self, paths: Sequence[str]) -> Places:
        """Where the rows of these pictures are; -1 for those that have none.

        `paths` are those of files below the folder. What is found counts as used.
        """
        skip = len(self._above)
        below = [path[skip:] for path in paths]
        places = self._find(below)
        left = np.flatnonzero(places < 0)
        if self.format.by_stem and len(left):
            places[left] = self._find([posixpath.splitext(below[i])[0] for i in left])
        return places

    def _find(self, names: Sequence[str]) -> Places:
        if not len(self):
            return np.full(len(names), -1, np.int64)
        wanted = np.fromiter(map(hash, names), np.int64, len(names))
        at = np.minimum(np.searchsorted(self._names, wanted, side="left"), len(self) - 1)
        places = np.where(self._names[at] == wanted, at, -1)
        self._used[places[places >= 0]] = True
        return places

    def fields(self, place: int) -> Mapping[str, Any]:
        """The fields of a row; Refused where it cannot be used or is no longer what it was.

        StoreError where it cannot be read.
        """
        return self._row(place)[1]

    def _row(self, place: int) -> tuple[list[str], Mapping[str, Any]]:
        begin, end = int(self._begins[place]), int(self._ends[place])
        if self._copy is not None:
            data = os.pread(self._copy.fileno(), end - begin, begin)
        else:
            data = bytes(read_part(self._path, begin, end))
        if hash_of(data) != int(self.stamps[place]):
            raise Refused("unreadable", "the file was changed while it was read")
        return self.format.row(data)

    def count_unused(self, counts: CaptionCounts) -> None:
        """Counts the flaws, and the rows that were never found."""
        counts.merge(self.flaws)
        unused = np.flatnonzero(~self._used)
        counts.count("unused_rows", number=len(unused))
        for place in unused[np.argsort(self._begins[unused])][:EXAMPLES].tolist():
            with suppress(Refused):
                names = ", ".join(self._row(place)[0])
                counts.count("unused_rows", f"{self._path}: {names}", number=0)


def _columns() -> tuple[array[int], ...]:
    """Hash of the name, stamp, begin and end of each row."""
    return array("q"), array("Q"), array("q"), array("q")


def _opened(path: AnyPath) -> tuple[BinaryIO, bool]:
    """A local file, or a nameless copy of a remote or UTF-16 one; behind a mark of UTF-8.

    Errors as `unread`.
    """
    try:
        file = _fetched(path) if isinstance(path, RemotePath) else _local(path)
    except OSError as error:
        raise unread(path, error) from error
    mark = file.read(3)
    if mark.startswith(_UTF_16):
        return _as_utf_8(file), True
    file.seek(3 if mark == codecs.BOM_UTF8 else 0)
    return file, isinstance(path, RemotePath)


def _local(path: Path) -> BinaryIO:
    file = open(path, "rb", opener=without_waiting)  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise Refused("unreadable", "it is not a regular file")
    return file


def _fetched(path: RemotePath) -> BinaryIO:
    file: BinaryIO = TemporaryFile()  # noqa: SIM115
    with open_stream(path) as stream:
        while block := stream.read(RANGE):
            file.write(block)
    file.seek(0)
    return file


def _as_utf_8(file: BinaryIO) -> BinaryIO:
    """A copy of a UTF-16 file in UTF-8; Refused where it is none."""
    copy: BinaryIO = TemporaryFile()  # noqa: SIM115
    with file:
        file.seek(0)
        decoder = codecs.getincrementaldecoder("utf-16")()
        try:
            while block := file.read(RANGE):
                copy.write(decoder.decode(block).encode())
            decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            raise Refused("not_utf8", "it begins like UTF-16 and is not valid UTF-16") from error
    copy.seek(0)
    return copy
