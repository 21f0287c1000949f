"""Makes a path or URL, given as text, an object that reads and writes its files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from latentcli.core.errors import StoreError, UsageError
from latentcli.shards.storage.remote_path import RemotePath, RemoteStat

AnyPath = Path | RemotePath

__all__ = ["AnyPath", "RemotePath", "RemoteStat", "is_remote", "path_of", "read_part", "reading"]

# Two letters at least: one would be the drive of another system.
_URL = re.compile(r"([a-z][a-z0-9+.-]+)://(.*)", re.IGNORECASE | re.DOTALL)
_LOCAL = ("file", "local")


def is_remote(text: str) -> bool:
    """Whether a text is the URL of remote storage, such as s3://, gs://, hf:// or https://."""
    match = _URL.fullmatch(text)
    return match is not None and match[1].lower() not in (*_LOCAL, "pipe")


def path_of(text: str) -> AnyPath:
    """The path object of a text: a URL, a file:// URL or a path. Slashes at its end do not count.

    UsageError for a URL that names no bucket or host.
    """
    match = _URL.fullmatch(text)
    if match is None or match[1].lower() == "pipe":
        return Path(text)
    scheme, path = match[1].lower(), match[2]
    if scheme in _LOCAL:
        return Path("/" + path.removeprefix("localhost").lstrip("/"))
    if not path.strip("/"):
        raise UsageError(f"{text} names no bucket or host: write {scheme}://name/path.")
    return RemotePath(f"{scheme}://{path.rstrip('/')}")


@contextmanager
def reading(path: AnyPath, what: str = "") -> Iterator[None]:
    """StoreError in place of an OSError of the block; `what` stands in front of the path."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"{what}{path} cannot be read: {error.strerror}.") from error


def read_part(path: AnyPath, begin: int, end: int) -> bytearray:
    """Bytes `begin` to `end`, fewer where a local file ends before; StoreError as `reading`."""
    with reading(path):
        if isinstance(path, RemotePath):
            return bytearray(path.read_range(begin, end))
        data = bytearray(end - begin)
        with path.open("rb") as file:
            file.seek(begin)
            del data[file.readinto(data) :]
        return data
