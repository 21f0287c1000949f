"""Finds the mean and std that a store's latents should have, channel by channel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from latentcli.core.errors import LatentCliError
from latentcli.models.pretrained import Located, at_hand, at_path
from latentcli.models.registry import find_preset
from latentcli.models.weights import file_sha256
from latentcli.shards.tensors.file import SafetensorsFile

_MEANS = ("latent_norm_running_mean", "bn.running_mean", "running_mean")
_VARIANCES = ("latent_norm_running_var", "bn.running_var", "running_var")


@dataclass(frozen=True, slots=True)
class Reference:
    """What is expected of each channel."""

    words: str
    """Where it comes from, in whole sentences."""
    mean: list[float] | None = None
    """[C]; None where nothing is known of single channels."""
    std: list[float] | None = None
    """[C]; there with the mean."""
    whole_std: float | None = None
    """Of all values together, where that is known."""


def reference_of(state: str, channels: int, metadata: Mapping[str, str]) -> Reference:
    """The reference of latents in this state; asks no network and loads no model."""
    if state == "whitened":
        return Reference(
            "Whitened latents: every channel should have mean 0 and standard deviation 1 over"
            " pictures like those that the model's figures were taken from.",
            *([0.0] * channels, [1.0] * channels, 1.0),
        )
    if state == "scaled":
        return Reference(
            "Scaled latents: all values together should have a standard deviation of about 1;"
            " nothing is known of single channels, so each is compared with all together.",
            whole_std=1.0,
        )
    what = "The posterior's mode" if state == "moments" else "Raw latents"
    found = running_statistics(channels, metadata)
    if found is None:
        return Reference(
            f"{what}: the model's own mean and variance of each channel are not known, so each"
            " channel is compared with all together."
        )
    mean, std = found
    model = metadata.get("model", "the model")
    return Reference(
        f"{what}: every channel should have the mean and standard deviation that the weights of"
        f" {model} hold for whitening it.",
        *(mean, std),
    )


def running_statistics(
    channels: int, metadata: Mapping[str, str]
) -> tuple[list[float], list[float]] | None:
    """(mean, std) of each channel in the weights that made the latents; None without them.

    Only a safetensors file on this machine is looked into, and only that of the right digest.
    """
    try:
        found = _weights(metadata.get("model", ""))
        if found is None or found.also or found.weights_path.suffix != ".safetensors":
            return None
        wanted = metadata.get("weights_sha256")
        if wanted and file_sha256(found.weights_path) != wanted:
            return None
        return _read(found.weights_path, channels)
    except LatentCliError:
        return None


def _weights(model: str) -> Located | None:
    preset = find_preset(model)
    if preset is not None:
        return at_hand(preset)
    return at_path(Path(model)) if model and Path(model).is_dir() else None


def _read(path: Path, channels: int) -> tuple[list[float], list[float]] | None:
    with SafetensorsFile(path) as file:
        mean, variance = (
            next((name for name in names if _has(file, name, channels)), None)
            for names in (_MEANS, _VARIANCES)
        )
        if variance is None:
            return None
        std = file.tensor(variance).double().clamp_min(0).sqrt().tolist()
        # A linear code is centred by its own bias, and keeps a variance alone.
        centre = [0.0] * channels if mean is None else file.tensor(mean).double().tolist()
        return centre, std


def _has(file: SafetensorsFile, name: str, channels: int) -> bool:
    return name in file.entries and file.entries[name].shape == (channels,)
