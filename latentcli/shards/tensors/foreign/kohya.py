"""Reads the npz caches of kohya's sd-scripts."""

from __future__ import annotations

import re
import zipfile
import zlib
from functools import partial

import numpy as np
import torch
from torch import Tensor

from latentcli.core.errors import SampleError, StoreError
from latentcli.shards.storage.paths import AnyPath
from latentcli.shards.tensors.foreign.latents import (
    ForeignFile,
    ForeignLatent,
    checked,
    known_state,
    state_of,
)

NAME = "kohya's sd-scripts"
NAMES = "_sd.npz, _sdxl.npz, _sd3.npz, _flux.npz and _lumina.npz"

_LATENTS = re.compile(r"latents(_\d+x\d+)?")
_STEM = re.compile(r"(.+)_\d{4,}x\d{4,}_[a-z0-9]+\.npz", re.IGNORECASE)
_DAMAGED = (ValueError, OSError, EOFError, KeyError, MemoryError, zipfile.BadZipFile, zlib.error)
"""What numpy and zipfile raise for a damaged file, and for one that holds Python objects."""


def kohya_stem(name: str) -> str:
    """<name of the picture> of <name of the picture>_<W>x<H>_sdxl.npz."""
    match = _STEM.fullmatch(name)
    return match[1] if match else name.rpartition("_")[0] or name.removesuffix(".npz")


def open_kohya(path: AnyPath, state: str | None, stem: str, *, space: str, own: str) -> ForeignFile:
    """The latents of a cache, one or one for each resolution; those of mirrored pictures are left
    out.

    `own` is the state that the trainer keeps latents of this space in. StoreError where the file
    is damaged or has none; UsageError where another `state` is asked for.
    """
    own = known_state(path, state, own)
    try:
        names = array_names(path)
    except _DAMAGED as error:
        raise StoreError(f"{path} is damaged: {error}.") from error
    found = [name for name in names if _LATENTS.fullmatch(name)]
    if not found:
        raise StoreError(
            f"{path} has the name of a latent cache of kohya's sd-scripts, but holds no latents."
        )
    latents = [
        ForeignLatent(
            stem if len(found) == 1 else f"{stem}{name.removeprefix('latents')}",
            partial(npz_array, path, name),
        )
        for name in found
    ]
    return ForeignFile(path, space, own, latents)


def open_old_kohya(path: AnyPath, state: str | None, stem: str) -> ForeignFile | None:
    """The latent of a cache with the old name, which is one of sd1 or sdxl; None for others."""
    try:
        names = array_names(path)
    except _DAMAGED:
        return None
    if not {"latents", "original_size", "crop_ltrb"} <= set(names):
        return None
    latent = ForeignLatent(stem, partial(npz_array, path, "latents"))
    return ForeignFile(path, None, state_of(path, state, None, "raw"), [latent])


def array_names(path: AnyPath) -> list[str]:
    """Names of the arrays of an npz file; one of _DAMAGED where it is none."""
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return list(arrays.files)


def npz_array(path: AnyPath, name: str) -> Tensor:
    """A latent [C, h, w] of an npz file, float32; SampleError where it cannot be read."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            array = arrays[name]
    except _DAMAGED as error:
        raise SampleError("read", f"{name} is damaged: {error}") from error
    if not np.issubdtype(array.dtype, np.floating):
        raise SampleError("read", f"{name} is of {array.dtype}, which is not a latent")
    return checked(torch.from_numpy(array.astype(np.float32)), name)
