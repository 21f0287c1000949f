"""Reads the latent caches of musubi-tuner."""

from __future__ import annotations

import re
from functools import partial

from torch import Tensor

from latentcli.core.errors import SampleError, StoreError
from latentcli.shards.storage.paths import AnyPath
from latentcli.shards.tensors.file import SafetensorsFile
from latentcli.shards.tensors.foreign.latents import (
    ForeignFile,
    ForeignLatent,
    Space,
    checked,
    known_state,
)

NAME = "musubi-tuner"
SPACES: dict[str, Space] = {
    "f2d": ("flux2", "whitened"),
    "f2k4b": ("flux2", "whitened"),
    "f2k9b": ("flux2", "whitened"),
    "zi": ("flux1", "raw"),
    "fk": ("flux1", "scaled"),
}
"""What the trainer keeps for an architecture, by the last part of a file's name."""
WAN = "in the space of Wan 2.1's autoencoder, which no model here decodes"
VIDEO = "of a video autoencoder, which no model here decodes"
UNREAD = {
    "qi": f"Qwen-Image latents {WAN}",
    "qie": f"Qwen-Image-Edit latents {WAN}",
    "qil": f"Qwen-Image-Layered latents {WAN}",
    "kr2": f"Krea 2 latents {WAN}",
    "i4": "Ideogram 4 latents, which are FLUX.2's in another order of channels and not whitened",
    "ho1": "latents of the architecture ho1, which no model here decodes",
    "k5": f"Kandinsky 5 latents {VIDEO}",
    "wan": f"Wan latents {VIDEO}",
    "hv": f"HunyuanVideo latents {VIDEO}",
    "hv15": f"HunyuanVideo 1.5 latents {VIDEO}",
    "fp": f"FramePack latents {VIDEO}",
}
"""What cannot be decoded, and why."""

_STEM = re.compile(r"(.+)_\d{4,}x\d{4,}_[a-z0-9]+\.safetensors", re.IGNORECASE)
_KEY = re.compile(r"latents_(?:(?P<F>\d+)x)?(?P<h>\d+)x(?P<w>\d+)_[a-z0-9]+")


def musubi_stem(name: str) -> str:
    """<name of the picture> of <name of the picture>_<W>x<H>_f2d.safetensors."""
    match = _STEM.fullmatch(name)
    return match[1] if match else name.removesuffix(".safetensors")


def open_musubi(path: AnyPath, state: str | None, stem: str, *, arch: str) -> ForeignFile:
    """The latent of a cache; StoreError where it has none, UsageError for another `state`."""
    space, own = SPACES[arch]
    file = SafetensorsFile(path)
    names = [name for name in file.names if _KEY.fullmatch(name)]
    if len(names) != 1:
        raise StoreError(
            f"{path} has the name of a latent cache of musubi-tuner, which holds one tensor"
            f" latents_<h>x<w>_<dtype>; it has {len(names)} of them."
        )
    latent = ForeignLatent(stem, partial(_load, file, names[0]))
    return ForeignFile(path, space, known_state(path, state, own), [latent])


def _load(file: SafetensorsFile, name: str) -> Tensor:
    latent, said = file.tensor(name), _KEY.fullmatch(name)
    assert said is not None
    if latent.ndim == 4 and latent.shape[1] == 1:
        latent = latent[:, 0]
    if int(said["F"] or 1) != 1:
        raise SampleError("read", f"{name} is of a clip, and clips are not read")
    latent = checked(latent, name)
    if latent.shape[1:] != (int(said["h"]), int(said["w"])):
        raise SampleError("read", f"{name} is {list(latent.shape)}, not of the size in its name")
    return latent
