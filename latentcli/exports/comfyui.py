"""Writes ComfyUI's .latent files, which its LoadLatent node reads, into one folder.

Source: ComfyUI a125cd84, nodes.py SaveLatent and LoadLatent.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from latentcli.exports.format import ExportFormat, ExportSample, File, Group, Setting, Variant
from latentcli.exports.names import stem
from latentcli.exports.serialise import DTYPES, safetensors_bytes

MARKER = "latent_format_version_0"
"""An empty tensor; without it the reader multiplies by the inverse of SD 1's factor."""

VARIANTS = (
    Variant(name="sd1", spaces=("sd1",), state="raw", suits="SD 1 and 2", channels=4),
    Variant(name="sdxl", spaces=("sdxl",), state="raw", suits="SDXL", channels=4),
    Variant(name="sd3", spaces=("sd3",), state="raw", suits="SD 3", channels=16),
    Variant(name="flux1", spaces=("flux1",), state="raw", suits="FLUX.1, Z-Image", channels=16),
    Variant(name="flux2", spaces=("flux2",), state="whitened", suits="FLUX.2", channels=128),
)


def write(samples: Sequence[ExportSample], number: int, setting: Setting) -> Group:
    """`<stem>.latent` of each: a batch of one latent [1, C, h, w]."""
    dtype = DTYPES[setting.dtype]
    metadata = {"prompt": ""} | setting.notes()
    return Group(
        [
            File(
                f"{stem(sample.name)}.latent",
                safetensors_bytes(
                    {"latent_tensor": sample.latent[None].to(dtype), MARKER: torch.zeros(0)},
                    metadata,
                ),
            )
            for sample in samples
        ]
    )


def advice(setting: Setting) -> Sequence[str]:
    """Where ComfyUI looks for them."""
    return (
        "Copy the files into ComfyUI's input folder itself (its LoadLatent does not look into"
        f" subfolders), and decode them there with the VAE of {setting.variant.suits}.",
    )


FORMAT = ExportFormat(
    name="comfyui",
    summary="ComfyUI: a .latent file for each picture, for its LoadLatent node",
    variants=VARIANTS,
    fields=False,
    write=write,
    path=stem,
    flips=False,
    dtypes=("float32", "bfloat16", "float16"),
    advice=advice,
)
