"""Reads the latent caches of ai-toolkit."""

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
    state_of,
)
from latentcli.shards.tensors.foreign.musubi import WAN

NAME = "ai-toolkit"
FOLDER = "_latent_cache"
"""Beside the pictures."""
TENSOR, VERSION = "latent", "latent_space_version"
SPACES: dict[str, Space] = {
    "sd1": ("sd1", "scaled"),
    "sdxl": ("sdxl", "scaled"),
    "sd3": ("sd3", "scaled"),
    **dict.fromkeys(("flux1", "zimage", "flux_kontext", "chroma"), ("flux1", "scaled")),
    **dict.fromkeys(("flux2", "flux2_klein_4b", "flux2_klein_9b"), ("flux2", "whitened")),
}
"""By latent_space_version."""
UNREAD = dict.fromkeys(("qwen_image", "krea2"), f"latents {WAN}")

_STEM = re.compile(r"(.+)_[A-Za-z0-9_-]{22}\.safetensors", re.IGNORECASE)


def ai_toolkit_stem(name: str) -> str:
    """<name of the picture> of <name of the picture>_<digest>.safetensors."""
    match = _STEM.fullmatch(name)
    return match[1] if match else name.removesuffix(".safetensors")


def open_ai_toolkit(path: AnyPath, state: str | None, stem: str) -> ForeignFile | None:
    """The latent of a cache; None where the file is none.

    StoreError where its latent_space_version is not known, or no model here decodes it; one that is
    not known is read with a `state`.
    """
    file = SafetensorsFile(path)
    version = file.metadata.get(VERSION)
    if version is None or TENSOR not in file.entries:
        return None
    latent = ForeignLatent(stem, partial(_load, file))
    if version in SPACES:
        space, own = SPACES[version]
        return ForeignFile(path, space, known_state(path, state, own), [latent])
    if version in UNREAD:
        raise StoreError(f"{path} is a latent cache of ai-toolkit: {version}, {UNREAD[version]}.")
    if state is None:
        raise StoreError(
            f"{path} is a latent cache of ai-toolkit whose {VERSION} is {version!r}, and known are"
            f" {', '.join(SPACES)}. Say what it holds with --latents and --model."
        )
    return ForeignFile(path, None, state_of(path, state, None, "scaled"), [latent])


def _load(file: SafetensorsFile) -> Tensor:
    if file.entries[TENSOR].dtype == "U8":
        raise SampleError(
            "read", f"{TENSOR} holds pixels, as ai-toolkit keeps them for some models"
        )
    return checked(file.tensor(TENSOR), TENSOR)
