"""Writes the safetensors caches of hustvl/LightningDiT, and the statistics that it normalises by.

Source: LightningDiT 2725fed4, extract_features.py and datasets/img_latent_dataset.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from latentcli.exports.format import (
    ExportFormat,
    ExportSample,
    Facts,
    File,
    Group,
    Setting,
    Variant,
)
from latentcli.exports.serialise import safetensors_places, torch_bytes
from latentcli.exports.sums import merged, sums_of

PER_FILE = 10_000
STATISTICS = "latents_stats.pt"
VARIANTS = (
    Variant(name="any", spaces=(), state="raw", suits="the VAE that the model decodes with"),
)


def write(samples: Sequence[ExportSample], number: int, setting: Setting) -> Group:
    """One file of some samples, filled while they are read, so that it is held once.

    The trainer takes latents_flip every other time without a look: without mirrored latents it
    gets the others again.
    """
    data = bytearray()
    places: dict[str, torch.Tensor] = {}
    for i, sample in enumerate(samples):
        if not places:
            data, places = empty_file(len(samples), tuple(sample.latent.shape))
        places["latents"][i] = sample.latent
        mirrored = sample.mirrored
        places["latents_flip"][i] = sample.latent if mirrored is None else mirrored
        assert sample.label is not None
        places["labels"][i] = sample.label
    # Readers sort the names as texts.
    file = File(f"latents_rank00_shard{number:06d}.safetensors", memoryview(data))
    return Group([file], sums_of(places["latents"].numpy()))


def empty_file(count: int, shape: tuple[int, ...]) -> tuple[bytearray, dict[str, torch.Tensor]]:
    """A file of so many latents [C, h, w] of zeros, and its tensors to fill."""
    metadata = {"total_size": f"{count}", "dtype": "torch.float32", "device": "cpu"}
    latents = torch.float32, (count, *shape)
    layout = {"latents": latents, "latents_flip": latents, "labels": (torch.int64, (count,))}
    return safetensors_places(layout, metadata)


def finish(facts: Sequence[Facts], setting: Setting) -> Sequence[File]:
    """The statistics, of all latents and with the unbiased deviation; the trainer takes 10,000."""
    found = merged(facts)
    if found is None:
        return ()
    variance = found.variance * (found.values / max(found.values - 1, 1))
    values = {"mean": torch.from_numpy(found.mean), "std": torch.from_numpy(variance).sqrt()}
    rows = {name: value.float().view(1, -1, 1, 1) for name, value in values.items()}
    return (File(STATISTICS, torch_bytes(rows)),)


def advice(setting: Setting) -> Sequence[str]:
    """What to set."""
    size = f", downsample_ratio {setting.downscale}, in_chans {setting.channels}"
    lines = [
        f"Set data_path to the folder, latent_norm: true{size}; {STATISTICS} holds the mean and"
        " deviation that it normalises by, of all latents.",
    ]
    if not setting.mirrored:
        lines.append(
            "The store has no mirrored latents, so latents_flip holds the same latents again, and"
            " the trainer sees no mirrored pictures. To have them, encode with --flip both."
        )
    return lines


FORMAT = ExportFormat(
    name="lightningdit",
    summary="hustvl/LightningDiT: safetensors of 10,000 latents with labels, and their statistics",
    variants=VARIANTS,
    fields=False,
    write=write,
    finish=finish,
    group=PER_FILE,
    group_bytes=1 << 30,
    lazy=True,
    needs=frozenset({"labels", "one_size", "square"}),
    advice=advice,
)
