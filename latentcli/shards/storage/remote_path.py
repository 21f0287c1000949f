"""Stands for a file or folder in remote storage as pathlib.Path does for a local one.

Folders of an object storage are but prefixes: they need no making, and an empty one is not there.
"""

from __future__ import annotations

import errno
import fnmatch
import io
import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from latentcli.shards.storage.filesystem import ask
from latentcli.shards.storage.retry import Cut, Plain, answered

if TYPE_CHECKING:
    from typing_extensions import Buffer

READ_AHEAD = 4 * 2**20
"""Bytes that an open remote file asks for at once."""

_PART = 16 * 2**20
_PARTS = 9000
_NO_SUCH_RANGE = 416
_TIMES = ("LastModified", "last_modified", "mtime", "updated", "modified", "created")


@dataclass(frozen=True, slots=True)
class RemoteStat:
    """What a storage says of a file, under the names of os.stat_result."""

    st_size: int
    """Bytes; -1 where the storage does not say."""
    st_mtime_ns: int
    """Modification time in nanoseconds; -1 where the storage does not say."""


@dataclass(frozen=True, slots=True, order=True)
class RemotePath:
    """A file or folder in remote storage; it holds the URL alone and opens what it needs.

    Its methods are those of Path. Transient trouble is tried again (retry.py). Errors are
    OSErrors with plain words in `strerror`; UsageError where the scheme's package is missing.
    """

    url: str
    """As given, without slashes at the end."""

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> RemotePath:
        path, query = _split(self.url)
        return RemotePath(f"{path}/{name}{query}")

    @property
    def name(self) -> str:
        """The last part of the path; empty for a bucket."""
        path = _split(self.url)[0].partition("://")[2]
        return path.rpartition("/")[2] if "/" in path else ""

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return Path(self.name).stem

    @property
    def suffix(self) -> str:
        """The name's last suffix, with its dot."""
        return Path(self.name).suffix

    @property
    def parent(self) -> RemotePath:
        """The folder; a bucket is its own."""
        path, query = _split(self.url)
        return RemotePath(path.removesuffix(f"/{self.name}") + query) if self.name else self

    def with_name(self, name: str) -> RemotePath:
        """Another file of the same folder."""
        return self.parent / name

    def exists(self) -> bool:
        """Whether there is a file or a folder."""
        return self._kind() is not None

    def is_file(self) -> bool:
        """Whether there is a file."""
        return self._kind() == "file"

    def is_dir(self) -> bool:
        """Whether there is anything below this path, and no file of this name."""
        return self._kind() == "directory"

    def stat(self) -> RemoteStat:
        """Size and time; FileNotFoundError where there is no file."""
        info = self._info()
        if info.get("type") != "file":
            raise FileNotFoundError(errno.ENOENT, "it is not there", self.url)
        return _stat(info)

    def iterdir(self) -> Iterator[RemotePath]:
        """Files and folders of this folder; FileNotFoundError where there are none."""
        return (path for path, _ in self.entries())

    def glob(self, pattern: str) -> Iterator[RemotePath]:
        """Files and folders of this folder whose name matches; `*` crosses no folder."""
        try:
            found = self.entries()
        except FileNotFoundError:
            return iter(())
        return (path for path, _ in found if fnmatch.fnmatchcase(path.name, pattern))

    def entries(self) -> list[tuple[RemotePath, RemoteStat | None]]:
        """Files with what is known of them, and folders with None, in one listing."""
        own, infos = ask(
            self.url,
            "listing",
            lambda files, path: (path, _fresh(files).ls(path, detail=True)),
        )
        named = [(info["name"].rstrip("/"), info) for info in infos]
        return [
            (self / name.rpartition("/")[2], _stat(info) if info.get("type") == "file" else None)
            for name, info in named
            if name.strip("/") != own.strip("/")
        ]

    def find(self) -> Iterator[tuple[RemotePath, RemoteStat]]:
        """All files below this folder, at any depth, in the order of their URLs."""
        own, infos = ask(
            self.url,
            "listing",
            lambda files, path: (path, _fresh(files).find(path, detail=True)),
        )
        skip = len(own.rstrip("/")) + 1
        below = ((name[skip:], _stat(info)) for name, info in sorted(infos.items()))
        return ((self / name, found) for name, found in below if name)

    def read_bytes(self) -> bytes:
        """The whole file."""
        return ask(self.url, "reading", lambda files, path: bytes(files.cat_file(path)))

    def read_range(self, begin: int, end: int) -> bytes:
        """Bytes `begin` to `end`, all of them; OSError where the file ends before."""
        if end <= begin:
            return b""
        return ask(self.url, "reading", lambda files, path: _range(files, path, begin, end))

    def open(self, mode: Literal["rb"] = "rb") -> BufferedReader:
        """A file to read and seek in. It reads ahead, and a cut connection is taken up again."""
        if mode != "rb":
            raise ValueError(f"a remote file can be opened to read bytes only, not as {mode!r}")
        return BufferedReader(_RemoteFile(self), READ_AHEAD)

    def write_file(self, local: Path) -> None:
        """Uploads a local file; it appears as a whole or not at all, in the place of an old one."""
        size = local.stat().st_size
        ask(
            self.url,
            "upload",
            lambda files, path: files.put_file(str(local), path, **_parts(files, size)),
        )

    def write_bytes(self, data: bytes, *, new: bool = False) -> None:
        """As `write_file`, of a few bytes in memory.

        OSError where the file must be new and is not, and where the storage can tell.
        """
        mode = {"mode": "create"} if new else {}
        ask(self.url, "upload", lambda files, path: files.pipe_file(path, data, **mode))

    def copy_to(self, name: str) -> None:
        """Copies a file inside its folder, in the place of an old one."""
        own = self.name
        ask(
            self.url,
            "copy",
            lambda files, path: files.cp_file(path, path.removesuffix(own) + name),
        )

    def unlink(self, missing_ok: bool = False) -> None:
        """Deletes a file; FileNotFoundError where there is none and that matters."""
        if not missing_ok:
            self.stat()
        # An earlier try, or another job, may have been there first.
        with suppress(FileNotFoundError):
            ask(self.url, "deletion", lambda files, path: files.rm_file(path))

    def mkdir(self, parents: bool = False, exist_ok: bool = False) -> None:
        """Does nothing: a folder comes with its first file. Buckets are never made."""

    def _kind(self) -> str | None:
        try:
            return str(self._info().get("type"))
        except FileNotFoundError:
            return None

    def _info(self) -> dict[str, Any]:
        return ask(self.url, "look-up", lambda files, path: dict(_fresh(files).info(path)))


def _split(url: str) -> tuple[str, str]:
    """A URL without its query, and the query; only web servers have one."""
    if not url.lower().startswith(("http://", "https://")):
        return url, ""
    path, mark, query = url.partition("?")
    return path, mark + query


def _fresh(files: Any) -> Any:
    files.invalidate_cache()
    return files


def _stat(info: dict[str, Any]) -> RemoteStat:
    size = info.get("size")
    times = (_nanoseconds(info.get(name)) for name in _TIMES)
    return RemoteStat(-1 if size is None else int(size), next((t for t in times if t >= 0), -1))


def _nanoseconds(value: Any) -> int:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return -1
    if isinstance(value, datetime):
        moment = value if value.tzinfo else value.replace(tzinfo=UTC)
        # Whole numbers: a float of this size would be off by some hundred nanoseconds.
        past = moment - datetime(1970, 1, 1, tzinfo=UTC)
        return ((past.days * 86400 + past.seconds) * 10**6 + past.microseconds) * 1000
    return int(value * 10**9) if isinstance(value, int | float) else -1


def _range(files: Any, path: str, begin: int, end: int) -> bytes:
    try:
        data = bytes(files.cat_file(path, start=begin, end=end))
    except Exception as error:
        if answered(error)[0] != _NO_SUCH_RANGE:
            raise
        data = b""
    if len(data) == end - begin:
        return data
    if len(data) > end - begin:
        raise Plain(errno.ENOTSUP, "the server does not send parts of files")
    size = _fresh(files).info(path).get("size")
    if size is None or size >= end:
        raise Cut
    raise Plain(errno.EIO, f"it has {size} bytes now, and bytes up to {end} were expected")


def _parts(files: Any, size: int) -> dict[str, int]:
    """How s3fs cuts an upload: by itself it would hold 500 MB in memory."""
    if "s3" not in files.protocol:
        return {}
    return {"chunksize": max(_PART, math.ceil(size / _PARTS)), "max_concurrency": 4}


class _RemoteFile(io.RawIOBase):
    """The unbuffered file under `RemotePath.open`."""

    def __init__(self, path: RemotePath) -> None:
        self._path = path
        self._size = path.stat().st_size
        self._at = 0
        if self._size < 0:
            raise OSError(errno.ENOTSUP, "the server does not report its size", path.url)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def readinto(self, buffer: Buffer) -> int:
        view = memoryview(buffer).cast("B")
        data = self._path.read_range(self._at, min(self._at + len(view), self._size))
        view[: len(data)] = data
        self._at += len(data)
        return len(data)
