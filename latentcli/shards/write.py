"""Bytes or tensors in; a file that is there as a whole or not at all, and its digest, out."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import socket
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

from latentcli.core.errors import StoreError
from latentcli.shards.dtypes import MAX_HEADER_BYTES, code_of
from latentcli.shards.place import Place, RemotePath

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Bytes = bytes | memoryview

TEMPORARY = ".tmp-"

_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file is larger than this system allows a process to write",
    errno.EACCES: "there is no permission to write there",
    errno.EPERM: "there is no permission to write there",
    errno.EROFS: "the file system is read-only",
}
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class Pieces(Protocol):
    """A tensor that comes in pieces of bytes, as `Spooled` does."""

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    def element_size(self) -> int: ...

    def pieces(self) -> Iterator[bytes]: ...


@dataclass(frozen=True, slots=True)
class FileDigest:
    """What was written."""

    bytes: int
    sha256: str
    """Hexadecimal, of the whole file."""


def atomic_write(path: Place, chunks: Iterable[Bytes]) -> FileDigest:
    """Writes a file that is complete before its name appears, and on the disk if it is local.

    The bytes go to a temporary file in the same folder, are fsynced and renamed, and the folder
    is fsynced. Those of a remote file go to a temporary file of this machine, and are uploaded
    as one object. An error leaves what was there before; StoreError where the system refuses.
    """
    try:
        return _upload(path, chunks) if isinstance(path, RemotePath) else _replace(path, chunks)
    except OSError as error:
        raise write_error(path, error) from error


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


def temporary_name(name: str) -> str:
    """The name of a file until it is complete: several machines may share a folder."""
    return f"{TEMPORARY}{socket.gethostname().replace('/', '')}-{os.getpid()}-{name}"


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
    sha256, size = hashlib.sha256(), 0
    for chunk in chunks:
        file.write(chunk)
        sha256.update(chunk)
        size += memoryview(chunk).nbytes
    return FileDigest(size, sha256.hexdigest())


def write_error(path: Place, error: OSError) -> StoreError:
    """The sentence for a refused write: what, why, and what to do."""
    reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
    cure = "make room" if error.errno in _NO_ROOM else "put that right"
    return StoreError(
        f"{path} cannot be written: {reason}. What was committed before is safe; {cure} and run"
        " the same command again to finish the rest."
    )


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


def write_safetensors(
    path: Place, tensors: Mapping[str, Tensor | Pieces], metadata: Mapping[str, str]
) -> FileDigest:
    """Writes a safetensors file of these parts; errors as `safetensors_parts`."""
    _, chunks = safetensors_parts(tensors, metadata)
    return atomic_write(path, chunks)


def safetensors_parts(
    tensors: Mapping[str, Tensor | Pieces], metadata: Mapping[str, str]
) -> tuple[int, Iterator[Bytes]]:
    """Size in bytes and the bytes of a safetensors file, which depend on its content alone.

    Header entries are sorted by name, after the metadata; the data lies without holes, widest
    dtype first (so that every tensor is aligned), then by name. Tensors may be on any device; no
    more than one is copied at a time, and of one in pieces no more than a piece is in memory.
    ValueError for a dtype or name that the format lacks; StoreError for too many tensors.
    """
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header = _header(tensors, order, metadata)
    if len(header) > MAX_HEADER_BYTES:
        raise StoreError(
            f"The shard cannot be written: its list of {len(tensors)} tensors takes {len(header)}"
            f" bytes and safetensors allows {MAX_HEADER_BYTES}. Put fewer samples into a shard."
        )
    size = 8 + len(header) + sum(map(_size, tensors.values()))
    return size, _safetensors_bytes(header, (tensors[name] for name in order))


def _size(tensor: Tensor | Pieces) -> int:
    return math.prod(tensor.shape) * tensor.element_size()


def _header(
    tensors: Mapping[str, Tensor | Pieces], order: list[str], metadata: Mapping[str, str]
) -> bytes:
    entries: dict[str, Any] = {}
    end = 0
    for name in order:
        tensor = tensors[name]
        begin, end = end, end + _size(tensor)
        entries[name] = {
            "dtype": code_of(tensor.dtype),
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    if "__metadata__" in entries:
        raise ValueError("a tensor cannot be named __metadata__")
    if not all(type(value) is str for value in metadata.values()):
        raise ValueError(f"safetensors metadata are strings, got {dict(metadata)!r}")
    first = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    document = first | dict(sorted(entries.items()))
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
    return text + b" " * (-len(text) % 8)


def _safetensors_bytes(header: bytes, tensors: Iterable[Tensor | Pieces]) -> Iterator[Bytes]:
    import torch

    yield len(header).to_bytes(8, "little")
    yield header
    for tensor in tensors:
        if isinstance(tensor, torch.Tensor):
            yield tensor_bytes(tensor)
        else:
            yield from tensor.pieces()


def tensor_bytes(tensor: Tensor) -> Bytes:
    """Little-endian bytes of a tensor, row-major; a view of its memory where that is so already."""
    import torch

    flat = tensor.detach().cpu().contiguous().reshape(-1)
    if flat.stride() != (1,):
        # A tensor of one value, or of none, counts as contiguous whatever its strides are.
        flat = flat.clone(memory_format=torch.contiguous_format)
    return flat.view(torch.uint8).numpy().data


def remove_temporary(store: Place) -> list[Path]:
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
