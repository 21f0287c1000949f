"""Writes the files of an export, so that each appears whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from latentcli.core.errors import StoreError, UsageError
from latentcli.exports.format import File
from latentcli.jobs.runtime.places import SHORT_NAME, check_name
from latentcli.shards.storage.atomic_write import atomic_write, temporary_name, writing

THREADS = 4
"""That write the small files of a step."""
LARGE = 1 << 20
"""Bytes from which a file is brought to the disk at once."""


@dataclass(slots=True)
class Writer:
    """Writes into a folder."""

    folder: Path
    merge: Callable[[bytes, bytes], bytes] | None = None
    """What becomes of a file that is there already and a new one."""
    ours: Collection[str] = ()
    """Files that this export wrote before: where one is damaged, the new one takes its place."""
    _folders: set[Path] = field(default_factory=set)

    def begin(self, files: Sequence[File], pool: ThreadPoolExecutor) -> Iterator[tuple[str, int]]:
        """Begins to write some files, several at a time; (path, bytes) of each when it is there."""
        return pool.map(self._write, files)

    def _write(self, file: File) -> tuple[str, int]:
        path = self.folder / file.path
        if len(str(path)) > SHORT_NAME or not file.path.isascii():
            check_name(self.folder, path)
        if path.parent not in self._folders:
            with writing(path.parent):
                path.parent.mkdir(parents=True, exist_ok=True)
            self._folders.add(path.parent)
        data = self._merged(path, file)
        if len(data) >= LARGE:
            atomic_write(path, [data])
        else:
            replace(path, data)
        return file.path, len(data)

    def _merged(self, path: Path, file: File) -> bytes:
        # A power cut leaves empty what was written just before.
        if self.merge is None or not path.exists() or not path.stat().st_size:
            return file.data
        try:
            return self.merge(path.read_bytes(), file.data)
        except ValueError as error:
            if file.path in self.ours:
                return file.data
            raise StoreError(
                f"{path} is there already and damaged ({error}): delete it."
            ) from error


def replace(path: Path, data: bytes) -> None:
    """Writes a small file under another name, then renames it.

    It is not brought to the disk: a hundred thousand times that would take hours. What a power cut
    leaves too short, the next run finds by its length.
    """
    temporary = path.with_name(temporary_name(path.name))
    with writing(path):
        try:
            temporary.write_bytes(data)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def output_folder(output: str) -> Path:
    """The folder of an export; UsageError for a URL."""
    if "://" in output:
        raise UsageError(
            f"--output is {output}; an export is written to a folder of this machine, as trainers"
            " read it. Copy it from there."
        )
    return Path(output).expanduser()
