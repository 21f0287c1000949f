"""Reads the .pt files of SimpleTuner's VAE cache, and runs nothing that is in them."""

from __future__ import annotations

import gzip
import io
import pickle
import zlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latentcli.core.errors import StoreError
from latentcli.shards.storage.paths import AnyPath, read_part
from latentcli.shards.tensors.foreign.latents import (
    ForeignFile,
    ForeignLatent,
    Space,
    checked,
    state_of,
)

NAME = "SimpleTuner"
SPACES: dict[int, Space] = {128: ("flux2", "whitened")}
"""By channels, where these tell them; of all others SimpleTuner keeps scaled latents."""
LARGEST = 2**30
"""Bytes of a compressed file that are unpacked."""

SAVE = (
    "Save its tensors, [C, h, w] each, with safetensors.torch.save_file, and give that file with"
    " --model and, for latents before any scaling, --latents raw."
)
PICKLE = (
    "a file of PyTorch, which may run code when it is loaded, so it is not read. Load it where"
    f" you trust it. {SAVE}"
)
OBJECTS = (
    "a file of PyTorch that holds more than one tensor. Loading that may run code, so it is not"
    f" read. Load it where you trust it. {SAVE}"
)

_ZIP, _GZIP = b"PK\x03\x04", b"\x1f\x8b"


def open_simpletuner(path: AnyPath, state: str | None, stem: str) -> ForeignFile:
    """The latent of a file, which is a tensor [C, h, w] or the `latents` of a dict.

    The file does not say whose it is: but for 128 channels, `space` is not known. StoreError where
    it holds anything but tensors; nothing of that is loaded.
    """
    latent = tensor_of(path)
    space, own = SPACES.get(latent.shape[0] if latent.ndim == 3 else 0, (None, "scaled"))
    found = ForeignLatent(stem, lambda: checked(latent, "its tensor"))
    return ForeignFile(path, space, state_of(path, state, space, own), [found])


def tensor_of(path: AnyPath) -> Tensor:
    """The one tensor of a file, mapped into memory where it can be."""
    content = loaded(path)
    if isinstance(content, dict):
        content = content.get("latents")
    if type(content) is not torch.Tensor:
        raise StoreError(f"{path} is {OBJECTS}")
    if content.layout != torch.strided or content.is_meta:
        raise StoreError(f"{path} is damaged: its tensor has no values of its own.")
    # Strides of 0 would make a latent of any size of one value.
    if content.numel() * content.element_size() > content.untyped_storage().nbytes():
        raise StoreError(f"{path} is damaged: its tensor is larger than what is stored of it.")
    return content.detach()


def loaded(path: AnyPath) -> Any:
    """What a file holds, if that is tensors and plain values; StoreError otherwise."""
    head = bytes(read_part(path, 0, len(_ZIP)))
    try:
        if head == _ZIP and isinstance(path, Path):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        if head == _ZIP:
            data = path.read_bytes()
        elif head.startswith(_GZIP):
            data = unpacked(path)
        else:
            raise StoreError(f"{path} is {PICKLE}")
        if not data.startswith(_ZIP):
            raise StoreError(f"{path} is {PICKLE}")
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except StoreError:
        raise
    except pickle.UnpicklingError as error:
        raise StoreError(f"{path} is {OBJECTS}") from error
    except (EOFError, OSError, zlib.error) as error:
        raise StoreError(f"{path} cannot be read: {error}.") from error
    except Exception as error:  # what torch raises for a damaged file has no common base
        reason = str(error).partition("\n")[0].rstrip(".")
        raise StoreError(f"{path} is damaged: {reason}.") from error


def unpacked(path: AnyPath) -> bytes:
    """The bytes of a gzip file; StoreError where they are more than any latent has."""
    with path.open("rb") as file, gzip.open(file) as stream:
        data = stream.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise StoreError(f"{path} unpacks to more than {LARGEST:,} bytes, and is not a latent.")
    return data
