"""Maps the dtype codes of the safetensors format to torch dtypes and back."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

MAX_HEADER_BYTES = 100_000_000
"""The safetensors library refuses a longer header."""

_NAMES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
}


@cache
def dtypes() -> dict[str, torch.dtype]:
    """Torch dtype by safetensors code."""
    import torch

    return {code: getattr(torch, name) for code, name in _NAMES.items()}


def code_of(dtype: torch.dtype) -> str:
    """Safetensors code of a dtype; ValueError where the format has none."""
    code = _codes().get(dtype)
    if code is None:
        raise ValueError(f"safetensors cannot hold {dtype}, it can hold {', '.join(_NAMES)}")
    return code


@cache
def _codes() -> dict[torch.dtype, str]:
    return {dtype: code for code, dtype in dtypes().items()}
