"""Turns arrays and tensors into the bytes of npy, npz, safetensors and torch files.

Equal values give equal bytes: no file holds a time, and the order of its entries is fixed.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array = npt.NDArray[np.generic]

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
"""Dtypes of latents by the names that torch and numpy have for them."""
_CODES = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
}


def npy_bytes(array: Array) -> bytes:
    """A file of one array, format 1.0."""
    file = io.BytesIO()
    np.lib.format.write_array(file, array, allow_pickle=False)
    return file.getvalue()


def npz_bytes(arrays: Mapping[str, Array]) -> bytes:
    """An archive of arrays, not compressed, in their order."""
    file = io.BytesIO()
    # numpy has one time for all members, that of 1980.
    np.savez(file, allow_pickle=False, **arrays)
    return file.getvalue()


def safetensors_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file; the library's own writer has another order of metadata in each run."""
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    parts: list[bytes] = []
    offset = 0
    for name, tensor in sorted(tensors.items()):
        parts.append(raw_bytes(tensor))
        end = offset + len(parts[-1])
        header[name] = {
            "dtype": _CODES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return b"".join((len(text).to_bytes(8, "little"), text, *parts))


def torch_bytes(value: Tensor | dict[str, Tensor]) -> bytes:
    """What torch.save writes into an open file; the bytes depend on the version of torch."""
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def raw_bytes(tensor: Tensor) -> bytes:
    """A tensor's values, little-endian, the last dimension the fastest."""
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()
