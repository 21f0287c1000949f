"""Reads the latents that ComfyUI's SaveLatent writes."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from latentcli.core.errors import StoreError
from latentcli.shards.storage.paths import AnyPath
from latentcli.shards.tensors.file import SafetensorsFile
from latentcli.shards.tensors.foreign.latents import (
    ForeignFile,
    ForeignLatent,
    Space,
    checked,
    state_of,
)

NAME = "ComfyUI"
TENSOR, MARKER = "latent_tensor", "latent_format_version_0"
SPACES: dict[int, Space] = {128: ("flux2", "whitened")}
"""By channels, where these tell them; of all others ComfyUI keeps raw latents."""
UNMARKED = 1 / 0.18215
"""What ComfyUI multiplies latents with that have no marker, as it once stored them scaled."""


def open_comfy(path: AnyPath, state: str | None, stem: str) -> ForeignFile:
    """The latents of a file; StoreError where there are none of pictures.

    ComfyUI does not say whose they are: but for 128 channels, `space` is not known. UsageError
    where another `state` is asked for than is known.
    """
    file = SafetensorsFile(path)
    entry = file.entries.get(TENSOR)
    if entry is None or len(entry.shape) != 4:
        found = "none" if entry is None else f"one of {list(entry.shape)}"
        raise StoreError(
            f"{path} should hold {TENSOR} [N, C, h, w], as ComfyUI writes latents of pictures; it"
            f" has {found}."
        )
    count, channels = entry.shape[:2]
    space, own = SPACES.get(channels, (None, "raw"))
    factor = 1.0 if MARKER in file.entries else UNMARKED
    keys = [stem] if count == 1 else [f"{stem}_{i:05d}" for i in range(count)]
    latents = [ForeignLatent(key, partial(_load, file, i, factor)) for i, key in enumerate(keys)]
    return ForeignFile(path, space, state_of(path, state, space, own), latents)


def _load(file: SafetensorsFile, index: int, factor: float) -> Tensor:
    latent = checked(file.rows(TENSOR, index, index + 1)[0], TENSOR)
    return latent if factor == 1 else latent.float() * factor
