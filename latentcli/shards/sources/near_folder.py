"""Reads files beside an input, and its rows in the metadata of one folder."""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from collections.abc import Sequence

from latentcli.core.field_values import MAX_CAPTION, MAX_DOCUMENT, Refused
from latentcli.core.fields import AUTO, Gathered
from latentcli.shards.sources.endings_there import EndingsThere
from latentcli.shards.sources.folder_listing import NO_SIZE, Sizes, companions, metadata_of
from latentcli.shards.sources.metadata_formats import METADATA
from latentcli.shards.sources.metadata_index import MetadataIndex, unread
from latentcli.shards.sources.remote import remote
from latentcli.shards.storage.byte_stream import without_waiting
from latentcli.shards.storage.paths import is_remote

_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EISDIR)


def near_folder(folder: str, suffixes: Sequence[str]) -> NearFolder:
    """A folder as it is; a remote one is listed, where files of these suffixes are to be read.

    OSError where it cannot be listed.
    """
    if not suffixes or not is_remote(folder):
        return NearFolder(folder, metadata_of(folder))
    names: list[str] = []
    sizes = Sizes(companions(folder, suffixes, names))
    return NearFolder(folder, names, sizes)


def add_file(found: Gathered, near: NearFolder, name: str, is_document: bool) -> None:
    """Takes in a file beside an input, where there is one."""
    if name in METADATA:
        return
    try:
        data = near.read(name, MAX_DOCUMENT if is_document else MAX_CAPTION)
    except Refused as error:
        found.refuse(name, error)
        return
    if data is not None:
        (found.add_document if is_document else found.add_text)(name, data)


def add_row(found: Gathered, index: MetadataIndex, path: str) -> None:
    """Takes in the row that a file of metadata has of an input."""
    (row,) = index.find([path]).tolist()
    if row < 0:
        return
    # A column that the user named is the caption in every file.
    names = index.format.caption_names if found.rule.names == AUTO.names else None
    try:
        found.add_fields(index.name, index.fields(row), names)
    except Refused as error:
        found.refuse(index.name, error)


class NearFolder:
    """A folder from which files are read by name, and its metadata."""

    def __init__(self, folder: str, metadata: Sequence[str], sizes: Sizes | None = None) -> None:
        self.folder, self._sizes = folder, sizes
        self._endings: EndingsThere | None = None
        self.has_files = sizes is not None or not is_remote(folder)
        """Whether files can be read from it."""
        self.metadata = [
            (order, MetadataIndex(folder, name))
            for order, name in enumerate(METADATA)
            if name in metadata
        ]
        """Its files of metadata, each with its order of precedence."""

    def suffixes(self, suffixes: Sequence[str], asked: int) -> Sequence[str]:
        """Those of the suffixes that files in it may have, for so many inputs; always of the same
        ones."""
        if self._sizes is not None or is_remote(self.folder):
            return suffixes
        if self._endings is None:
            self._endings = EndingsThere(self.folder, suffixes)
        return self._endings.of(asked)

    def read(self, name: str, limit: int) -> bytes | None:
        """A file's bytes, one more than the limit where it is longer; None where there is none.

        Refused where it may not be read; StoreError where it cannot, which may pass.
        """
        try:
            if self._sizes is not None:
                return _remote_bytes(f"{self.folder}/{name}", self._sizes.get(name), limit)
            return _local_bytes(posixpath.join(self.folder, name), limit)
        except OSError as error:
            if error.errno in _NOT_THERE:
                return None
            raise unread(f"{self.folder}/{name}", error) from error


def _local_bytes(path: str, limit: int) -> bytes | None:
    with open(path, "rb", opener=without_waiting) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return None
        return file.read(limit + 1)


def _remote_bytes(url: str, size: int | None, limit: int) -> bytes | None:
    if size is None or size == 0:
        return None if size is None else b""
    if size == NO_SIZE:
        return remote(url).read_bytes()
    return remote(url).read_range(0, min(size, limit + 1))
