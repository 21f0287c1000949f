"""Tries the places that a job is to write to, before the work whose result goes there."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from latentcli.core.errors import SampleError, UsageError
from latentcli.shards.layout import MANIFEST, SHARDS
from latentcli.shards.storage.atomic_write import refusal, temporary_name, write_error
from latentcli.shards.storage.paths import RemotePath, is_remote, path_of

SHORT_NAME = 100
"""Bytes of a name, or of a path, that every file system takes."""


def try_file(option: str, text: str) -> None:
    """UsageError where no file can be made there; what is there stays as it is.

    `option` is the one that names it. Remote storage gets an empty file of another name for a
    moment.
    """
    path = path_of(text)
    if isinstance(path, RemotePath):
        try_upload(option, path)
        return
    with refused(option, text, path):
        if path.is_dir():
            raise UsageError(f"{option} {text} is a folder; name a file.")
        if not path.parent.is_dir():
            raise UsageError(f"{option} {text}: there is no folder {path.parent}; make it first.")
    write_into(option, text, path.parent)


def try_outside_stores(option: str, text: str) -> None:
    """`try_folder`, and UsageError in a store, among whose files others would be."""
    try_folder(option, text)
    path = Path(str(path_of(text))).absolute()
    for folder in (path, *path.parents):
        if (folder / MANIFEST).is_file() and (folder / SHARDS).is_dir():
            which = "it" if folder == path else str(folder)
            raise UsageError(
                f"{option} {text}: {which} is a latent store, which is no place for other files;"
                " name another one."
            )


def try_folder(option: str, text: str) -> None:
    """UsageError where no folder can be made there, or nothing written to it; makes none yet."""
    if is_remote(text):
        raise UsageError(f"{option} {text} is remote storage; name a folder of this machine.")
    path = Path(str(path_of(text))).absolute()
    with refused(option, text, path):
        above = next(folder for folder in (path, *path.parents) if folder.exists())
        if path.exists() and not path.is_dir():
            raise UsageError(f"{option} {text} is a file; name a folder.")
        if not above.is_dir():
            raise UsageError(
                f"{option} {text}: {above} exists and is not a folder; name another place."
            )
        # A name that the file system cannot hold shows only beside what is there already.
        for name in path.relative_to(above).parts:
            (above / name).exists()
    write_into(option, text, above)


@contextmanager
def refused(option: str, text: str, place: Path) -> Iterator[None]:
    """UsageError in place of an OSError of the block."""
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"{option} {text}: nothing can be written to {place}: {refusal(error)}. Name another"
            " place."
        ) from error


def write_into(option: str, text: str, folder: Path) -> None:
    """UsageError where a folder takes no file; the one that is tried is gone again."""
    trial = folder / temporary_name(text)
    with refused(option, text, folder):
        try:
            # A disk that is full still takes an empty file.
            trial.write_bytes(b"\0")
        finally:
            trial.unlink(missing_ok=True)


def try_upload(option: str, path: RemotePath) -> None:
    """UsageError where storage takes no file beside this one."""
    trial = path.with_name(temporary_name(path.name))
    try:
        with tempfile.NamedTemporaryFile() as empty:
            trial.write_file(Path(empty.name))
    except OSError as error:
        raise UsageError(
            f"{option} {path}: nothing can be written there: {refusal(error)}. Name another place."
        ) from error
    # Some may write to a storage and not delete from it.
    with suppress(OSError):
        trial.unlink(missing_ok=True)


def check_name(folder: Path, path: Path) -> None:
    """SampleError where the file system of a folder cannot hold the names of a path in it."""
    parts = path.relative_to(folder).parts
    try:
        if max(len(os.fsencode(name)) for name in (str(path), *parts)) <= SHORT_NAME:
            return
        # Of a folder that is not there yet, the system says no more than that.
        there = next(above for above in (folder, *folder.parents) if above.exists())
        for name in (path, *(there / part for part in parts)):
            with suppress(FileNotFoundError, NotADirectoryError):
                name.lstat()
    except UnicodeEncodeError as error:
        raise SampleError("write", "its name cannot be that of a file") from error
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise write_error(path, error) from error
        reason = f"its name is longer than the file system of {folder} allows"
        raise SampleError("write", reason) from error
