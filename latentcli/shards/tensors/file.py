"""Opens a safetensors file, and checks its header and every tensor before use."""

from __future__ import annotations

import json
import math
import mmap
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from latentcli.core.errors import StoreError
from latentcli.core.first_bytes import described
from latentcli.shards.storage.paths import AnyPath, RemotePath, read_part
from latentcli.shards.storage.ranges import read_ranges
from latentcli.shards.tensors.dtypes import MAX_HEADER_BYTES, dtypes

if TYPE_CHECKING:
    from torch import Tensor


_HEAD = 2**16
_JSON = 8
"""Where the text of a header begins, behind its length; it is an object."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor of a header."""

    dtype: str
    """Safetensors code."""
    shape: tuple[int, ...]
    begin: int
    """First byte, from the start of the data."""
    end: int


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says of itself."""

    metadata: dict[str, str]
    entries: dict[str, Entry]
    """By name, sorted."""
    start: int
    """Where the entries count from, in bytes from the start of the file."""


class SafetensorsFile:
    """An open file, mapped into memory and read where a tensor is asked for.

    Tensors share the mapping and stay valid after `close`; writing into one changes neither the
    file nor another opening of it. Of a remote file a tensor's bytes are fetched when it is asked
    for. A copy sent to another process opens the file again. StoreError where the file is
    missing, truncated, or its header breaks the format's rules.
    """

    def __init__(self, path: AnyPath) -> None:
        self.path = path
        self._map: mmap.mmap | None = None
        self._closed = False
        try:
            if isinstance(path, RemotePath):
                read, size = _remote(path)
            else:
                self._map = data = _map(path)
                read, size = (lambda begin, end: data[begin:end]), len(data)
            header = self._read_header(read, size)
        except ValueError as error:
            raise StoreError(f"{path} is damaged: {error}.") from error
        except OSError as error:
            raise StoreError(f"{path} cannot be read: {error.strerror}.") from error
        self._start = header.start
        self.metadata: dict[str, str] = header.metadata
        self.entries: dict[str, Entry] = header.entries

    def _read_header(self, read: Callable[[int, int], bytes], size: int) -> Header:
        if size > _JSON and read(0, _JSON + 1)[_JSON:] != b"{" and _too_long(read, size):
            raise StoreError(
                f"{self.path} is not a safetensors file, or its beginning is damaged:"
                f" {described(bytes(read(0, min(size, 64))))}."
            )
        return read_header(read, size)

    @property
    def names(self) -> tuple[str, ...]:
        """Tensor names, sorted."""
        return tuple(self.entries)

    def tensor(self, name: str) -> Tensor:
        """A tensor on the CPU in its stored dtype and shape; StoreError for an unknown name."""
        import torch

        if self._closed:
            raise ValueError(f"{self.path} was closed")
        entry = self.entries.get(name)
        if entry is None:
            raise StoreError(f"{self.path} has no tensor {name!r}.")
        dtype, offset = dtypes()[entry.dtype], self._start + entry.begin
        size = dtype.itemsize
        count = (entry.end - entry.begin) // size
        if count == 0:
            return torch.empty(entry.shape, dtype=dtype)
        if self._map is None or offset % size:
            copy = read_part(self.path, offset, self._start + entry.end)
            return torch.frombuffer(copy, dtype=dtype).view(entry.shape)
        flat = torch.frombuffer(self._map, dtype=dtype, count=count, offset=offset)
        return flat.view(entry.shape)

    def copy_into(self, rooms: Sequence[tuple[Entry, memoryview]]) -> None:
        """Copies the bytes of tensors, each into memory of just as many.

        Quicker than `tensor`, of which a training loop copies each into its batch; of a remote file
        those that lie near each other come with one request. StoreError where the file cannot be
        read.
        """
        if self._closed:
            raise ValueError(f"{self.path} was closed")
        rooms = [(entry, memory) for entry, memory in rooms if entry.end > entry.begin]
        start = self._start
        if self._map is not None:
            data = memoryview(self._map)
            for entry, memory in rooms:
                memory[:] = data[start + entry.begin : start + entry.end]
            return
        spans = [(start + entry.begin, start + entry.end) for entry, _ in rooms]
        for (begin, end), (_, memory), found in zip(
            spans, rooms, read_ranges(self.path, spans), strict=True
        ):
            if len(found) != end - begin:
                raise StoreError(f"{self.path} is damaged: it ends within a tensor.")
            memory[:] = found

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Rows `start` to `stop` of a tensor's first axis, read into memory of their own.

        Unlike `tensor`, what was read of a long tensor does not stay in memory. StoreError for an
        unknown name or where the file cannot be read.
        """
        import torch

        if name not in self.entries:
            raise StoreError(f"{self.path} has no tensor {name!r}.")
        entry = self.entries[name]
        start, stop, _ = slice(start, stop).indices(entry.shape[0])
        row = (entry.end - entry.begin) // max(entry.shape[0], 1)
        count = max(stop - start, 0)
        begin = self._start + entry.begin + start * row
        data = read_part(self.path, begin, begin + count * row)
        if len(data) != count * row:
            raise StoreError(f"{self.path} is damaged: it ends within tensor {name!r}.")
        shape = (count, *entry.shape[1:])
        dtype = dtypes()[entry.dtype]
        if not data:
            return torch.empty(shape, dtype=dtype)
        return torch.frombuffer(data, dtype=dtype).view(shape)

    def close(self) -> None:
        """Lets go of the mapping; the system frees it with the last tensor that uses it."""
        # Not mmap.close(): that would pull the memory away from under living tensors.
        self._map, self._closed = None, True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[type[Self], tuple[AnyPath]]:
        return type(self), (self.path,)


def _length(read: Callable[[int, int], bytes], size: int) -> int:
    """What a file says that its header takes."""
    return int.from_bytes(read(0, min(_JSON, size)), "little")


def _too_long(read: Callable[[int, int], bytes], size: int) -> bool:
    """Whether that is more than there is, or than any header takes."""
    return _length(read, size) > min(size - _JSON, MAX_HEADER_BYTES)


def _map(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            raise ValueError("it is empty")
        # ACCESS_COPY: torch wants memory that it may write to; the file stays as it is.
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)


def _remote(path: RemotePath) -> tuple[Callable[[int, int], bytes], int]:
    """What reads bytes of a remote file, and its size; most headers come with one request."""
    size = path.stat().st_size
    if size == 0:
        raise ValueError("it is empty")
    head = path.read_range(0, min(size, _HEAD))

    def read(begin: int, end: int) -> bytes:
        return head[begin:end] if end <= len(head) else path.read_range(begin, end)

    return read, size


def read_header(read: Callable[[int, int], bytes], size: int) -> Header:
    """The checked header of a file of `size` bytes, of which `read` gives begin to end.

    ValueError says what is wrong with the file.
    """
    length = _length(read, size)
    if size < _JSON or _too_long(read, size):
        raise ValueError(
            f"its header should take {length} bytes, the file has {size}; it is truncated or not a"
            " safetensors file"
        )
    try:
        fields = json.loads(read(8, 8 + length), object_pairs_hook=_unique)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"its header is not JSON ({error})") from error
    if not isinstance(fields, dict):
        raise ValueError("its header is not a JSON object")
    metadata = _metadata(fields.pop("__metadata__", {}))
    entries = {name: _entry(name, fields[name]) for name in sorted(fields)}
    _check_layout(entries, size - 8 - length)
    return Header(metadata, entries, 8 + length)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("its header names something twice")
    return fields


def _metadata(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(type(item) is str for item in value.values()):
        raise ValueError("its metadata are not a table of strings")
    return value


def _entry(name: str, value: Any) -> Entry:
    try:
        dtype, shape, (begin, end) = value["dtype"], value["shape"], value["data_offsets"]
        numbers = [*shape, begin, end]
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError(f"tensor {name!r} has no dtype, shape and offsets") from error
    if any(type(number) is not int or number < 0 for number in numbers):
        raise ValueError(f"tensor {name!r} has shape {shape!r:.60} and offsets {begin}, {end}")
    if type(dtype) is not str or dtype not in dtypes():
        raise ValueError(
            f"tensor {name!r} has dtype {dtype!r:.60}, known are {', '.join(dtypes())}"
        )
    if end - begin != math.prod(shape) * dtypes()[dtype].itemsize:
        raise ValueError(
            f"tensor {name!r} of shape {shape!r:.60} and dtype {dtype} cannot lie in"
            f" {end - begin} bytes"
        )
    return Entry(dtype, tuple(shape), begin, end)


def _check_layout(entries: Mapping[str, Entry], size: int) -> None:
    end = 0
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)):
        if entry.begin != end:
            what = "overlaps another" if entry.begin < end else "leaves a hole in front of it"
            raise ValueError(f"tensor {name!r} {what}")
        end = entry.end
    if end != size:
        what = "is truncated" if size < end else "goes on after its last tensor"
        raise ValueError(f"it {what}: the header describes {end} bytes of data, there are {size}")
