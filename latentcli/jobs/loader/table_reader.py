"""Reads tables with a column of pictures: Parquet, Arrow and JSON lines, one row a sample."""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import ClassVar

from latentcli.core.errors import SampleError, UsageError
from latentcli.core.types import InputRow, Member, Row
from latentcli.images.clips import CLIP_SUFFIXES
from latentcli.jobs.loader.packed_reader import PackedReader
from latentcli.jobs.loader.prepare import RawSample, failed, read_sample
from latentcli.jobs.loader.tar_stream import PackedInput, Seen
from latentcli.shards.keys import ARROW_SUFFIXES, JSONL_SUFFIXES, PARQUET_SUFFIXES
from latentcli.shards.sources.expand import local_name
from latentcli.shards.sources.local import absolute
from latentcli.shards.sources.remote import folder_of
from latentcli.shards.storage.byte_stream import open_stream, without_waiting
from latentcli.shards.storage.paths import RemotePath, is_remote, path_of
from latentcli.shards.tables.arrow import ArrowTable
from latentcli.shards.tables.cells import key_in, members_of, picture_in
from latentcli.shards.tables.json_lines import JsonTable
from latentcli.shards.tables.parquet import ParquetTable
from latentcli.shards.tables.paths import path_inside
from latentcli.shards.tables.picture_column import (
    CLIPS,
    PICTURES,
    Wanted,
    others_like,
    picture_column,
)
from latentcli.shards.tables.table import BYTES, PICTURE, NoPictures, Table, TableError, TableRow
from latentcli.shards.tar.member import MARK
from latentcli.shards.tar.read import ByteStream
from latentcli.shards.tar.samples import safe_key
from latentcli.shards.tar.unique_keys import UniqueKeys

READS = 16
"""Files that a table names and that are read at once."""

_CACHE = re.compile(r"cache-[0-9a-f]{8,}(_\d+_of_\d+)?\.arrow")
_CELL = re.compile(rf"(.+){MARK}(\d+)\.(.+)", re.DOTALL)


def is_cache(path: str) -> bool:
    """Whether an Arrow file is one that the `datasets` library keeps of what it once computed."""
    return _CACHE.fullmatch(path.rpartition("/")[2]) is not None


def is_of_pictures(path: str) -> bool:
    """Whether a table tells of the pictures beside it, as in Hugging Face's imagefolder."""
    return path.rpartition("/")[2].lower() == "metadata.jsonl"


def in_order(pieces: Iterable[RawSample | Callable[[], RawSample]]) -> Iterator[RawSample]:
    """Samples, those that are still to be read by a few threads; what comes before an error too."""
    waiting: deque[RawSample | Future[RawSample]] = deque()
    broken: TableError | None = None
    with ThreadPoolExecutor(READS, thread_name_prefix="read") as pool:
        try:
            for piece in pieces:
                waiting.append(pool.submit(piece) if callable(piece) else piece)
                while waiting and (isinstance(waiting[0], RawSample) or len(waiting) >= READS):
                    yield finished(waiting.popleft())
        except TableError as error:
            broken = error
        yield from map(finished, waiting)
    if broken is not None:
        raise broken


def finished(piece: RawSample | Future[RawSample]) -> RawSample:
    """The sample, as soon as it is read."""
    return piece if isinstance(piece, RawSample) else piece.result()


def read_with(row: InputRow, others: tuple[Member, ...]) -> RawSample:
    """A file that a table names, with what else its row holds."""
    return replace(read_sample(row), others=others)


def folder_of_table(source: str) -> str:
    """The folder or URL that paths in a table are relative to."""
    return folder_of(source) if is_remote(source) else posixpath.dirname(source)


def absolute_root(text: str | None) -> str | None:
    """The folder or URL of --image-root, absolute and without a slash at its end."""
    if text is None or is_remote(text):
        return text and text.rstrip("/")
    return absolute(local_name(text))


@dataclass(slots=True)
class TableReader(PackedReader):
    """Reads tables; each kind says how its files are opened."""

    @contextmanager
    def opened(self, source: str) -> Iterator[tuple[Table, Callable[[], str | None]]]:
        """A table, and what gives the file's digest in the end. TableError or OSError."""
        raise NotImplementedError
        yield

    @property
    def wanted(self) -> Wanted:
        """What is looked for in a table."""
        return CLIPS if self.suffixes & CLIP_SUFFIXES else PICTURES

    def look(self, source: str) -> str | None:
        """Which column is taken, where a table has several of pictures.

        UsageError where it has none; None where it cannot be read, which its rows will tell.
        """
        try:
            with self.opened(source) as (table, _):
                column = picture_column(table.columns, self.wanted, self.image_field)
                others = others_like(table.columns, self.wanted, column)
        except NoPictures as error:
            raise UsageError(f"{source} cannot be used: {error}.") from error
        except (TableError, OSError):
            return None
        if not others or self.image_field is not None:
            return None
        return (
            f"Column {column} of {source} is used, not {' or '.join(others)}; --image-field"
            " chooses another."
        )

    def samples(self, row: InputRow) -> Iterator[RawSample]:
        """One sample for each row; the digest is known once all of them are out."""
        before, keys = self.taken, UniqueKeys()
        self.digest, problem = None, None
        try:
            with self.opened(row.source) as (table, digest):
                for raw in in_order(self.in_table(row, table, keys)):
                    self.taken = before + table.taken
                    yield raw
                self.digest = digest()
        except TableError as error:
            problem = str(error)
            if keys.last:
                problem += f"; the rows after it are lost: make or fetch the {self.noun} again"
        except OSError as error:
            problem = f"the {self.noun} cannot be read: {error.strerror or error}"
        self.taken = before + max(self.taken - before, row.size)
        if problem is not None:
            key, _ = keys.claim(f"{keys.last} (rest)".strip())
            lost = Row(self.prefix(row) + key, f"{row.source}{MARK}{key}", "ok")
            yield RawSample(failed(lost, "read", problem), None)

    def in_table(
        self, row: InputRow, table: Table, keys: UniqueKeys
    ) -> Iterator[RawSample | Callable[[], RawSample]]:
        """The samples of an open table, or what reads them where they are files of their own."""
        column = picture_column(table.columns, self.wanted, self.image_field)
        read = [c.name for c in table.columns if c.holds not in (BYTES, PICTURE)]
        for found in table.rows([*{column: None, **dict.fromkeys(read)}]):
            key, _ = keys.claim(safe_key(key_in(found.values, found.number)))
            name = f"{row.source}{MARK}{found.number}.{column}"
            named = Row(self.prefix(row) + key, name, "ok")
            try:
                yield self.in_row(named, found, column, folder_of_table(row.source))
            except SampleError as error:
                yield RawSample(failed(named, error.stage, error.reason), None)

    def in_row(
        self, row: Row, found: TableRow, column: str, folder: str
    ) -> RawSample | Callable[[], RawSample]:
        """The sample of a table's row; SampleError where it has no picture."""
        if found.problem is not None:
            raise SampleError("read", found.problem)
        picture = picture_in(found.values.get(column), column)
        others = members_of(found.values, column)
        if isinstance(picture, bytes):
            return RawSample(row, picture, others)
        path = path_inside(picture, folder, self.image_root)
        return partial(read_with, InputRow(row.key, path, 0), others)

    def again(self, row: Row) -> RawSample:
        """One sample once more; what a table names by its path has that for its source."""
        cell = _CELL.fullmatch(row.source)
        if cell is None or not self.owns(cell[1]):
            return read_sample(InputRow(row.key, row.source, 0))
        source, number, column = cell.groups()
        try:
            with self.opened(source) as (table, _):
                found = table.row(int(number), column)
                piece = self.in_row(row, found, column, folder_of_table(source))
                return piece() if callable(piece) else piece
        except (TableError, OSError) as error:
            return RawSample(failed(row, "read", str(error)), None)
        except SampleError as error:
            return RawSample(failed(row, error.stage, error.reason), None)


@dataclass(slots=True)
class ParquetReader(TableReader):
    """Reads Parquet files, local ones and remote ones, which are read in parts."""

    noun: ClassVar[str] = "parquet file"
    endings: ClassVar[tuple[str, ...]] = PARQUET_SUFFIXES

    @contextmanager
    def opened(self, source: str) -> Iterator[tuple[Table, Callable[[], str | None]]]:
        """As the table reader's; a remote file has no digest, as it would be fetched twice."""
        path = path_of(source)
        if isinstance(path, RemotePath):
            with path.open("rb") as file:
                yield ParquetTable(file, path.stat().st_size), lambda: None
            return
        with open(path, "rb", opener=without_waiting) as file:
            info = os.fstat(file.fileno())
            yield ParquetTable(file, info.st_size), partial(digest_if_same, path, info)


def digest_if_same(path: Path, info: os.stat_result) -> str | None:
    """Hexadecimal sha256 of a file; None where it is another one by now, or was changed."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        now = os.fstat(file.fileno())
    same = (now.st_ino, now.st_size, now.st_mtime_ns) == (
        info.st_ino,
        info.st_size,
        info.st_mtime_ns,
    )
    return digest if same else None


@dataclass(slots=True)
class StreamedTableReader(TableReader):
    """Reads tables forward only, and takes the digest of their bytes on the way."""

    table: ClassVar[Callable[[ByteStream, int], Table]]

    @contextmanager
    def opened(self, source: str) -> Iterator[tuple[Table, Callable[[], str | None]]]:
        """As the table reader's."""
        path = path_of(source)
        seen = Seen()
        with open_stream(path, seen=seen) as stream:
            found = PackedInput(stream, seen)
            yield type(self).table(found, path.stat().st_size), found.digest


@dataclass(slots=True)
class ArrowReader(StreamedTableReader):
    """Reads Arrow files, such as those of a saved Hugging Face dataset."""

    noun: ClassVar[str] = "arrow file"
    endings: ClassVar[tuple[str, ...]] = ARROW_SUFFIXES
    table: ClassVar[Callable[[ByteStream, int], Table]] = ArrowTable


@dataclass(slots=True)
class JsonLinesReader(StreamedTableReader):
    """Reads files of JSON lines, whose pictures are paths or base64."""

    noun: ClassVar[str] = "JSONL file"
    endings: ClassVar[tuple[str, ...]] = JSONL_SUFFIXES
    table: ClassVar[Callable[[ByteStream, int], Table]] = JsonTable
