"""Writes safetensors files, whole or in pieces that need not fit into memory."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from latentcli.core.errors import StoreError
from latentcli.shards.storage.atomic_write import Bytes, FileDigest, atomic_write
from latentcli.shards.storage.paths import AnyPath
from latentcli.shards.tensors.dtypes import MAX_HEADER_BYTES, code_of
from latentcli.shards.tensors.packed import PackedTensor, Stretch, joined

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Pieces(Protocol):
    """A tensor that comes in pieces of bytes, as `PackedTensor` does."""

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    def element_size(self) -> int: ...

    def pieces(self) -> Iterator[Bytes]: ...


def write_safetensors(
    path: AnyPath, tensors: Mapping[str, Tensor | Pieces], metadata: Mapping[str, str]
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
    header, size = _header(tensors, order, metadata)
    if len(header) > MAX_HEADER_BYTES:
        raise StoreError(
            f"The shard cannot be written: its list of {len(tensors)} tensors takes {len(header)}"
            f" bytes and safetensors allows {MAX_HEADER_BYTES}. Put fewer samples into a shard."
        )
    return 8 + len(header) + size, _safetensors_bytes(header, (tensors[name] for name in order))


def _header(
    tensors: Mapping[str, Tensor | Pieces], order: list[str], metadata: Mapping[str, str]
) -> tuple[bytes, int]:
    """(Header, how many bytes of data it tells of)."""
    entries: dict[str, Any] = {}
    end = 0
    for name in order:
        tensor = tensors[name]
        shape = list(tensor.shape)
        begin, end = end, end + math.prod(shape) * tensor.element_size()
        code = code_of(tensor.dtype)
        entries[name] = {"dtype": code, "shape": shape, "data_offsets": [begin, end]}
    if "__metadata__" in entries:
        raise ValueError("a tensor cannot be named __metadata__")
    if not all(type(value) is str for value in metadata.values()):
        raise ValueError(f"safetensors metadata are strings, got {dict(metadata)!r}")
    first = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    document = first | dict(sorted(entries.items()))
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
    return text + b" " * (-len(text) % 8), end


def _safetensors_bytes(header: bytes, tensors: Iterable[Tensor | Pieces]) -> Iterator[Bytes]:
    import torch

    yield len(header).to_bytes(8, "little")
    yield header
    # Tensors of one batch lie behind each other, mostly in the order of the file too.
    places: Iterator[Stretch | Tensor | Pieces] = joined(map(_place, tensors))
    for place in places:
        if isinstance(place, torch.Tensor):
            yield tensor_bytes(place)
        else:
            yield from place.pieces()


def _place(tensor: Tensor | Pieces) -> Stretch | Tensor | Pieces:
    """The stretch that a tensor lies in, or the tensor itself."""
    if isinstance(tensor, PackedTensor) and isinstance(tensor.where, Stretch):
        return tensor.where
    return tensor


def tensor_bytes(tensor: Tensor) -> Bytes:
    """Little-endian bytes of a tensor, row-major; a view of its memory where that is so already."""
    import torch

    flat = tensor.detach().cpu().contiguous().reshape(-1)
    if flat.stride() != (1,):
        # A tensor of one value, or of none, counts as contiguous whatever its strides are.
        flat = flat.clone(memory_format=torch.contiguous_format)
    return flat.view(torch.uint8).numpy().data
