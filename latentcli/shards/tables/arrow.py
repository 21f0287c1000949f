"""Turns pyarrow's schemas, batches, values and errors into plain ones; reads Arrow files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from latentcli.core.errors import UsageError
from latentcli.shards.tables.table import (
    BYTES,
    OTHER,
    PICTURE,
    TEXT,
    UNKNOWN,
    Column,
    Table,
    TableError,
    TableRow,
)
from latentcli.shards.tar.read import ByteStream

_MAGIC = b"ARROW1\0\0"
_TEXTS, _BINARIES = ("string", "large_string", "string_view"), ("binary", "large_binary")


def load_pyarrow() -> Any:
    """pyarrow, or a UsageError that says how to get it."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UsageError(
            f"to read Parquet and Arrow files, pyarrow is needed and is not installed ({error}):"
            " pip install 'latentcli[tables]'"
        ) from error
    return pyarrow


@contextmanager
def telling(what: str) -> Iterator[None]:
    """TableError in place of what pyarrow raises for a file that it cannot read."""
    arrow = load_pyarrow()
    try:
        yield
    except (arrow.ArrowException, OSError, EOFError, ValueError, MemoryError) as error:
        text = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise TableError(f"{what}: {' '.join(text.split())}") from error


def columns_of(schema: Any) -> list[Column]:
    """The columns of a pyarrow schema."""
    features = _features(schema.metadata or {})
    return [
        Column(field.name, _holds(field.type), features.get(field.name, "")) for field in schema
    ]


def _features(metadata: dict[bytes, bytes]) -> dict[str, str]:
    """By column, the kind of feature that the `datasets` library wrote into a schema."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        return {
            name: str(feature.get("_type", ""))
            for name, feature in features.items()
            if isinstance(feature, dict)
        }
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}


def _holds(kind: Any) -> str:
    types = load_pyarrow().types
    if types.is_dictionary(kind):
        kind = kind.value_type
    if types.is_struct(kind):
        fields = {kind.field(at).name for at in range(kind.num_fields)}
        return PICTURE if "bytes" in fields else OTHER
    if types.is_fixed_size_binary(kind) or str(kind) in (*_BINARIES, "binary_view"):
        return BYTES
    if types.is_null(kind):
        return UNKNOWN
    return TEXT if str(kind) in _TEXTS else OTHER


def batch_rows(batch: Any, first: int) -> Iterator[TableRow]:
    """The rows of a record batch, whose first has the number `first`."""
    names = batch.schema.names
    columns = [batch.column(at) for at in range(len(names))]
    for at in range(batch.num_rows):
        values = {name: _plain(column[at]) for name, column in zip(names, columns, strict=True)}
        yield TableRow(first + at, values)


def _plain(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        if hasattr(scalar, "as_buffer"):
            return scalar.as_buffer().to_pybytes().decode("utf-8", "surrogateescape")
        return None
    except (ValueError, OverflowError):  # a time out of Python's range
        return str(scalar.value)


class ArrowTable(Table):
    """A file of record batches, in Arrow's stream or file format, read forward only.

    One batch is in memory. The file format is the stream format with a mark in front and an index
    behind, which is not needed. TableError where it is neither, or damaged.
    """

    def __init__(self, stream: ByteStream, size: int) -> None:
        arrow = load_pyarrow()
        self._source = _Measured(stream, size)
        with telling("it is not an Arrow file, or it is damaged at its beginning"):
            self._source.skip_mark()
            self._batches = arrow.ipc.open_stream(arrow.PythonFile(self._source, mode="r"))
        self.columns = columns_of(self._batches.schema)

    def rows(self, columns: Sequence[str]) -> Iterator[TableRow]:
        """As the table's; all that follows a damaged batch is lost."""
        number, before = 0, 0
        while True:
            with telling(f"the file is damaged or cut short after row {number:,}"):
                batch = next(self._batches, None)
                if batch is None and self._source.ended:
                    raise ValueError("its end mark is missing")
            if batch is None:
                return
            after = self._source.taken
            for row in batch_rows(batch.select(list(columns)), number):
                done = row.number - number + 1
                self.taken = before + (after - before) * done // batch.num_rows
                yield row
            number, before = number + batch.num_rows, after


class _Measured:
    """A stream as pyarrow reads it, which never asks for more than the file has left.

    A damaged length must not become memory.
    """

    closed = False

    def __init__(self, stream: ByteStream, size: int) -> None:
        self._stream, self._size = stream, size
        self._held = b""
        self.taken = 0
        self.ended = False
        """Whether there was nothing left when it was read last."""

    def skip_mark(self) -> None:
        """Passes over what stands in front of the stream in Arrow's file format."""
        begin = self._stream.read(len(_MAGIC))
        self._held = b"" if begin == _MAGIC else begin

    def read(self, size: int) -> bytes:
        """At most `size` bytes."""
        held, self._held = self._held[:size], self._held[size:]
        left = max(self._size - self.taken - len(held), 0)
        data = held + self._stream.read(min(size - len(held), left))
        self.taken += len(data)
        self.ended = not data
        return data

    def readable(self) -> bool:
        """As of a file."""
        return True

    def close(self) -> None:
        """Leaves the stream to who opened it."""
