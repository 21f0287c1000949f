"""Turns arrays and tensors into the bytes of npy, npz, safetensors and torch files.

Equal values give equal bytes: no file holds a time, and the order of its entries is fixed.
"""

from __future__ import annotations

import io
import json
import math
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array = npt.NDArray[np.generic]

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
"""Dtypes of latents by the names that torch and numpy have for them."""
_CRC = struct.Struct("<I")
_CODES = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
}


def npy_bytes(array: Array) -> bytes:
    """A file of one array in C order, format 1.0."""
    return _npy_head(array.dtype.str, array.shape) + array.tobytes()


@lru_cache(maxsize=256)
def _npy_head(dtype: str, shape: tuple[int, ...]) -> bytes:
    """What is in front of the values."""
    file = io.BytesIO()
    header = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue()


def npz_bytes(arrays: Mapping[str, Array]) -> bytes:
    """An archive of arrays, not compressed, in their order."""
    layout = tuple((name, array.dtype.str, array.shape) for name, array in arrays.items())
    return _npz_form(layout).filled(list(arrays.values()))


@dataclass(frozen=True, slots=True)
class _NpzForm:
    """An archive of zeros, of which all of one layout differ in their values and checksums alone.

    numpy's own writer takes longer than all else of a small file.
    """

    blank: bytes
    members: tuple[tuple[int, int, int, int, int], ...]
    """Of each array: where its values begin and end, the checksum of what its own header has
    before them, and the places of its checksum."""

    def filled(self, arrays: Sequence[Array]) -> bytes:
        data = bytearray(self.blank)
        for array, (begin, end, before, *places) in zip(arrays, self.members, strict=True):
            values = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
            data[begin:end] = values
            checksum = zlib.crc32(values, before)
            for place in places:
                _CRC.pack_into(data, place, checksum)
        return bytes(data)


@lru_cache(maxsize=256)
def _npz_form(layout: tuple[tuple[str, str, tuple[int, ...]], ...]) -> _NpzForm:
    file = io.BytesIO()
    # numpy has one time for all members, that of 1980.
    blank = {name: np.zeros(shape, dtype) for name, dtype, shape in layout}
    np.savez(file, allow_pickle=False, **blank)
    data = file.getvalue()
    members = []
    with zipfile.ZipFile(file) as archive:
        listed = archive.start_dir
        for entry, array in zip(archive.infolist(), blank.values(), strict=True):
            # A local header has 30 bytes before its name and extra field, a listed one 46.
            lengths = struct.unpack_from("<HH", data, entry.header_offset + 26)
            start = entry.header_offset + 30 + sum(lengths)
            end = start + entry.file_size
            before = zlib.crc32(data[start : end - array.nbytes])
            places = entry.header_offset + 14, listed + 16
            members.append((end - array.nbytes, end, before, *places))
            listed += 46 + sum(struct.unpack_from("<HHH", data, listed + 28))
    return _NpzForm(data, tuple(members))


def safetensors_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file; the library's own writer has another order of metadata in each run."""
    text = safetensors_header({n: (t.dtype, t.shape) for n, t in tensors.items()}, metadata)
    return b"".join((text, *(raw_bytes(tensor) for _, tensor in sorted(tensors.items()))))


def safetensors_places(
    layout: Mapping[str, tuple[torch.dtype, Sequence[int]]], metadata: Mapping[str, str]
) -> tuple[bytearray, dict[str, Tensor]]:
    """A safetensors file of zeros, and tensors that lie in it: filling them fills the file."""
    text = safetensors_header(layout, metadata)
    sizes = {name: math.prod(shape) * dtype.itemsize for name, (dtype, shape) in layout.items()}
    data = bytearray(len(text) + sum(sizes.values()))
    data[: len(text)] = text
    places, offset = {}, len(text)
    for name, (dtype, shape) in sorted(layout.items()):
        flat = torch.frombuffer(data, dtype=dtype, count=math.prod(shape), offset=offset)
        places[name] = flat.view(*shape)
        offset += sizes[name]
    return data, places


def safetensors_header(
    layout: Mapping[str, tuple[torch.dtype, Sequence[int]]], metadata: Mapping[str, str]
) -> bytes:
    """What is in front of the tensors of a safetensors file, which follow in order of name."""
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    offset = 0
    for name, (dtype, shape) in sorted(layout.items()):
        end = offset + math.prod(shape) * dtype.itemsize
        header[name] = {
            "dtype": _CODES[dtype],
            "shape": list(shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def torch_bytes(value: Tensor | dict[str, Tensor]) -> bytes:
    """What torch.save writes into an open file; the bytes depend on the version of torch."""
    file = io.BytesIO()
    # A tensor that is part of a larger one would be saved with all of that.
    own = {n: t.clone() for n, t in value.items()} if isinstance(value, dict) else value.clone()
    torch.save(own, file)
    return file.getvalue()


def raw_bytes(tensor: Tensor) -> bytes:
    """A tensor's values, little-endian, the last dimension the fastest."""
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()
