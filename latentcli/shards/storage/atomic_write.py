"""Writes a file that appears whole or not at all, and gives its digest."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from latentcli.core.errors import StoreError
from latentcli.shards.storage.hashing import HashingThread
from latentcli.shards.storage.paths import AnyPath, RemotePath

Bytes = bytes | memoryview

TEMPORARY = ".tmp-"
PIECE = 2**20
"""Bytes that are written at once; of 4 MiB at once, a byte took the system twice as long."""
_HOST = 32
"""Characters of the host's name in that of a temporary file, for whoever finds one."""
_OWN = secrets.token_bytes(16)
"""Tells this process, and its forks, from all others."""

_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file is larger than this system allows a process to write",
    errno.EACCES: "there is no permission to write there",
    errno.EPERM: "there is no permission to write there",
    errno.EROFS: "the file system is read-only",
    errno.ENAMETOOLONG: "the name is longer than the file system allows",
}
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class FileDigest:
    """What was written."""

    bytes: int
    sha256: str
    """Hexadecimal, of the whole file."""


def atomic_write(path: AnyPath, chunks: Iterable[Bytes]) -> FileDigest:
    """Writes a file that is complete before its name appears, and on the disk if it is local.

    The bytes go to a temporary file in the same folder, are fsynced and renamed, and the folder
    is fsynced. Those of a remote file go to a temporary file of this machine, and are uploaded
    as one object. An error leaves what was there before; StoreError where the system refuses.
    """
    with writing(path):
        return _upload(path, chunks) if isinstance(path, RemotePath) else _replace(path, chunks)


def _replace(path: Path, chunks: Iterable[Bytes]) -> FileDigest:
    temporary = path.with_name(temporary_name(path.name))
    try:
        with temporary.open("wb") as file:
            digest = _write(file, chunks)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
    return digest


def duplicate(path: AnyPath, name: str) -> None:
    """Gives a file a second name in its folder, in the place of what had it; both are whole then.

    StoreError where the system refuses.
    """
    if isinstance(path, RemotePath):
        with writing(path.with_name(name)):
            path.copy_to(name)
        return
    target = path.with_name(name)
    with writing(target):
        temporary = path.with_name(temporary_name(name))
        temporary.unlink(missing_ok=True)
        try:
            _link_or_copy(path, temporary)
            temporary.replace(target)
        finally:
            # Where both were one file already, the system leaves both names.
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)


def _link_or_copy(path: Path, other: Path) -> None:
    try:
        other.hardlink_to(path)
    except OSError:  # not every file system has links
        shutil.copyfile(path, other)
        with other.open("rb+") as file:
            os.fsync(file.fileno())


def temporary_name(name: str) -> str:
    """The name of a file until it is complete, short however long its own name is.

    No two processes that share a folder give the same one: hosts may be containers of equal names
    and equal process numbers, so a random part is in it too.
    """
    host = socket.gethostname().replace("/", "")[:_HOST]
    name_bytes = name.encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(name_bytes, key=_OWN, digest_size=8).hexdigest()
    return f"{TEMPORARY}{host}-{os.getpid()}-{digest}"


def _upload(path: RemotePath, chunks: Iterable[Bytes]) -> FileDigest:
    with scratch_file() as (file, local):
        try:
            digest = _write(file, chunks)
            file.flush()
        except OSError as error:
            # It is this machine that has no room, not the storage.
            folder = tempfile.gettempdir()
            raise write_error(Path(folder) / f"temporary file of {path.name}", error) from error
        path.write_file(local)
    size = path.stat().st_size
    if size not in (digest.bytes, -1):
        raise OSError(errno.EIO, f"{digest.bytes} bytes were uploaded and {size} arrived")
    return digest


@contextmanager
def scratch_file() -> Iterator[tuple[IO[bytes], Path]]:
    """An open temporary file of this machine, and a path by which this process can open it.

    Where the system can do that it has no name, so that nothing is left of it even by a kill.
    """
    with tempfile.TemporaryFile() as file:
        link = Path(f"/proc/self/fd/{file.fileno()}")
        if link.exists():
            yield file, link
            return
    with tempfile.NamedTemporaryFile(prefix=TEMPORARY) as named:
        yield named.file, Path(named.name)


def _write(file: IO[bytes], chunks: Iterable[Bytes]) -> FileDigest:
    size = 0
    with HashingThread() as digest:
        for chunk in chunks:
            view = memoryview(chunk)
            for begin in range(0, view.nbytes, PIECE):
                piece = view[begin : begin + PIECE]
                file.write(piece)
                digest.add(piece)
            size += view.nbytes
        return FileDigest(size, digest.hexdigest())


def refusal(error: OSError) -> str:
    """Why the system refuses to write, in words without a full stop."""
    return _REASONS.get(error.errno or 0, error.strerror or str(error))


def write_error(path: AnyPath, error: OSError) -> StoreError:
    """The sentence for a refused write: what, why, and what to do."""
    cure = "make room" if error.errno in NO_ROOM else "correct that"
    return StoreError(
        f"{path} cannot be written: {refusal(error)}. What was committed before is safe; {cure} and"
        " run the same command again to finish the rest."
    )


@contextmanager
def writing(path: AnyPath) -> Iterator[None]:
    """The `write_error` of the path in place of an OSError of the block."""
    try:
        yield
    except OSError as error:
        raise write_error(path, error) from error


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder durable, where the file system can sync folders at all."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def remove_temporary(store: AnyPath) -> list[Path]:
    """Deletes the temporary files that a killed run left; call it only under the store's lock.

    An upload leaves none: a remote store has no temporary files.
    """
    if not isinstance(store, Path):
        return []
    leftovers = sorted(
        path
        for folder in (store, store / "shards")
        for path in folder.glob(f"{TEMPORARY}*")
        if path.is_file()
    )
    for path in leftovers:
        path.unlink(missing_ok=True)
    return leftovers
