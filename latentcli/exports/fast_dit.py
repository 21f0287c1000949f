"""Writes the npy files of chuanyangjin/fast-DiT: one of a latent and one of a label for each.

Source: fast-DiT 0ddbd642, extract_features.py and train.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from latentcli.exports.format import ExportFormat, ExportSample, File, Group, Setting, Variant
from latentcli.exports.serialise import npy_bytes

FEATURES = "imagenet256_features"
LABELS = "imagenet256_labels"
"""The trainer has these names fixed, for other sizes too."""
VARIANTS = (
    Variant(name="dit", spaces=("sd1",), state="scaled", suits="DiT on SD's VAE", channels=4),
)


def write(samples: Sequence[ExportSample], number: int, setting: Setting) -> Group:
    """Two files of each; the latent has a leading axis of one, which the trainer takes away."""
    files: list[File] = []
    for sample in samples:
        # Both listings are sorted as texts and paired by position, so the names are the same.
        name = f"{sample.index}.npy"
        label = np.array([sample.label], dtype=np.int64)
        files.append(File(f"{FEATURES}/{name}", npy_bytes(sample.latent.numpy()[None])))
        files.append(File(f"{LABELS}/{name}", npy_bytes(label)))
    return Group(files)


def advice(setting: Setting) -> Sequence[str]:
    """What to set."""
    side = setting.shape[0] * setting.downscale if setting.shape else 256
    return (
        f"Train with --feature-path <the folder> --image-size {side} and --num-classes with the"
        " number of classes. Keep other files out of both folders: one more file shifts all"
        " labels.",
    )


FORMAT = ExportFormat(
    name="fast-dit",
    summary="chuanyangjin/fast-DiT: an .npy of the latent and one of the label for each picture",
    variants=VARIANTS,
    fields=False,
    write=write,
    alone=True,
    flips=False,
    needs=frozenset({"labels", "one_size", "square"}),
    advice=advice,
)
