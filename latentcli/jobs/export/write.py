"""Writes the files of an export, so that each appears whole or not at all."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from latentcli.core.errors import StoreError, UsageError
from latentcli.exports.format import File
from latentcli.jobs.runtime.places import SHORT_NAME, check_name
from latentcli.shards.storage.atomic_write import TEMPORARY, sync_folder, writing

PIECE = 1 << 17
"""Bytes that are written at a time: a system that makes room for much more in one piece may take
several times as long."""
LARGE = 1 << 20
"""Bytes from which a file is brought to the disk at once."""


@dataclass(slots=True)
class Writer:
    """Writes into a folder.

    Files get their names when they are whole. Until then they lie beside their place: to rename a
    file into another folder takes twice as long as to write it.
    """

    folder: Path
    merge: Callable[[bytes, bytes], bytes] | None = None
    """What becomes of a file that is there already and a new one."""
    ours: Collection[str] = ()
    """Files that this export wrote before: where one is damaged, the new one takes its place."""
    _prepared: set[str] = field(default_factory=set)
    """Folders that are there."""

    def write(self, files: Iterable[File]) -> list[tuple[str, int]]:
        """Writes some files: (path, bytes) of each."""
        return [(file.path, self._write(file)) for file in files]

    def _prepare(self, below: str) -> None:
        """Makes a folder, the first time."""
        if below in self._prepared:
            return
        path = self.folder / below
        check_name(self.folder, path)
        with writing(path):
            path.mkdir(parents=True, exist_ok=True)
        self._prepared.add(below)

    def _write(self, file: File) -> int:
        self._prepare(file.path.rpartition("/")[0])
        path = f"{self.folder}/{file.path}"
        if len(path) > SHORT_NAME or not file.path.isascii():
            check_name(self.folder, Path(path))
        data = file.data if self.merge is None else self._merged(path, file, self.merge)
        replace(path, unfinished(path), data)
        return len(data)

    def _merged(
        self, path: str, file: File, merge: Callable[[bytes, bytes], bytes]
    ) -> bytes | memoryview:
        try:
            there = Path(path).read_bytes() if os.path.exists(path) else b""  # noqa: PTH110
            # A power cut leaves empty what was written just before.
            return merge(there, bytes(file.data)) if there else file.data
        except ValueError as error:
            if file.path in self.ours:
                return file.data
            raise StoreError(
                f"{path} is there already and damaged ({error}): delete it."
            ) from error


def replace(path: str, temporary: str, data: bytes | memoryview) -> None:
    """Writes a file under another name, then renames it.

    Small ones are not brought to the disk: a hundred thousand times that would take hours. What a
    power cut leaves too short, the next run finds by its length.
    """
    large = len(data) >= LARGE
    try:
        try:
            # The system's own calls: what is around them in Python takes longer than they do.
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
            try:
                rest = memoryview(data)
                while rest:
                    rest = rest[os.write(handle, rest[:PIECE]) :]
                if large:
                    os.fsync(handle)
            finally:
                os.close(handle)
            os.rename(temporary, path)  # noqa: PTH104
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        if large:
            sync_folder(Path(path).parent)
    except OSError:
        with writing(Path(path)):
            raise


def unfinished(path: str) -> str:
    """What a file is called until it is whole.

    The name depends on the file alone, so what a kill left of it, the next run writes over.
    """
    folder, _, name = path.rpartition("/")
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    return f"{folder}/{TEMPORARY}{digest}"


def output_folder(output: str) -> Path:
    """The folder of an export; UsageError for a URL."""
    if "://" in output:
        raise UsageError(
            f"--output is {output}; an export is written to a folder of this machine, as trainers"
            " read it. Copy it from there."
        )
    return Path(output).expanduser()
