"""Reads the safetensors of LightningDiT's extract_features."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from latentcli.core.types import Member
from latentcli.shards.storage.paths import AnyPath
from latentcli.shards.tensors.file import SafetensorsFile
from latentcli.shards.tensors.foreign.latents import (
    ForeignFile,
    ForeignLatent,
    checked,
    state_of,
)

NAME = "LightningDiT"
LATENTS, LABELS = "latents", "labels"


def open_lightningdit(path: AnyPath, state: str | None, stem: str) -> ForeignFile | None:
    """The latents of a file, with their labels; those of mirrored pictures are left out.

    The file does not say whose they are: samples of the autoencoder, raw unless `state` says
    otherwise. None where it is no such file.
    """
    file = SafetensorsFile(path)
    latents, labels = file.entries.get(LATENTS), file.entries.get(LABELS)
    if latents is None or labels is None or len(latents.shape) != 4:
        return None
    if labels.shape != latents.shape[:1]:
        return None
    found = [
        ForeignLatent(f"{stem}_{i:05d}", partial(_load, file, i), partial(_label, file, i))
        for i in range(latents.shape[0])
    ]
    return ForeignFile(path, None, state_of(path, state, None, "raw"), found)


def _load(file: SafetensorsFile, index: int) -> Tensor:
    return checked(file.rows(LATENTS, index, index + 1)[0], LATENTS)


def _label(file: SafetensorsFile, index: int) -> tuple[Member, ...]:
    label = file.rows(LABELS, index, index + 1)[0].item()
    return (Member("cls", str(label).encode()),)
