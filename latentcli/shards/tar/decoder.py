"""Decodes `.safetensors` members to named tensors, for other readers of latentcli's tars.

webdataset.WebDataset(url).decode(latentcli.safetensors_decoder)
load_dataset("webdataset", data_files=url)  # then latentcli.load_latents(row[...])
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def safetensors_decoder(key: str, data: bytes) -> dict[str, Tensor] | None:
    """Tensors of a member whose extension `key` ends in safetensors; None leaves it to others.

    It is a handler for webdataset's `decode`, which gives extensions such as .latent.safetensors.
    """
    return load_latents(data) if key.rpartition(".")[2].lower() == "safetensors" else None


def load_latents(data: bytes) -> dict[str, Tensor]:
    """Tensors of a safetensors file by name: latent [C, h, w], and what else the sample has.

    Latents that are stored in int8 or fp8 come as their values, in float32. ValueError where the
    bytes are no such file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    from latentcli.core.store_dtype import held

    try:
        tensors: dict[str, Tensor] = load(bytes(data))
    except SafetensorError as error:
        raise ValueError(f"these {len(data)} bytes are not a safetensors file: {error}") from error
    return held(tensors)
