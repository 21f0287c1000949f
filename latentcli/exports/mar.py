"""Writes the npz caches of LTH14/mar: the moments of each picture, in a folder for each class.

Source: mar fe470ac2, engine_mar.py cache_latents and util/loader.py CachedFolder.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np
import torch

from latentcli.exports.format import (
    ExportFormat,
    ExportSample,
    Facts,
    File,
    Group,
    Moments,
    Setting,
    Variant,
)
from latentcli.exports.serialise import Array, npz_bytes
from latentcli.exports.sums import merged, sums_of

VARIANTS = (
    Variant(name="any", spaces=(), state="raw", suits="the VAE that the model decodes with"),
)


def write(samples: Sequence[ExportSample], number: int, setting: Setting) -> Group:
    """`<class>/<name of the picture>.npz` of each.

    The trainer takes moments_flip every other time without a look: without mirrored moments it
    gets the others again.
    """
    files = [File(path_of(sample, setting), npz_bytes(arrays(sample))) for sample in samples]
    moments = [sample.moments for sample in samples if sample.moments is not None]
    mean, std = (torch.stack([row[at] for row in moments]).numpy() for at in (0, 1))
    classes = sorted({sample.label for sample in samples if sample.label is not None})
    return Group(files, {"classes": classes, **sums_of(mean, std)})


def path_of(sample: ExportSample, setting: Setting) -> str:
    """The path of a sample's file: the trainer numbers the folders in the order of their names."""
    assert sample.label is not None
    name = f"{sample.name}{PurePosixPath(sample.picture).suffix}.npz"
    if setting.labels:
        return f"{setting.labels[sample.label]}/{name.partition('/')[2]}"
    return f"{sample.label:06d}/{name}"


def arrays(sample: ExportSample) -> dict[str, Array]:
    """Those of an archive."""
    assert sample.moments is not None
    own = stacked(sample.moments)
    mirrored = sample.mirrored_moments
    return {"moments": own, "moments_flip": own if mirrored is None else stacked(mirrored)}


def stacked(moments: Moments) -> Array:
    """Mean, then the logarithm of the variance, along the channels [2C, h, w]."""
    array: Array = np.concatenate([moments.mean.numpy(), moments.logvar.numpy()])
    return array


def closing(facts: Sequence[Facts], setting: Setting) -> Sequence[str]:
    """The factor of these latents, and a warning where the trainer would number classes anew."""
    found = merged(facts)
    if found is None:
        return ()
    # Of all channels together: the trainer has one factor.
    std = float(np.sqrt(np.mean(found.variance + found.mean**2) - np.mean(found.mean) ** 2))
    lines = [
        "The trainer multiplies samples by 0.2325, the factor of its own VAE; the factor of these"
        f" latents is {1 / max(std, 1e-12):.4f}: set it in engine_mar.py, for training and for"
        " sampling."
    ]
    classes = sorted({label for group in facts for label in group["classes"]})
    if classes != list(range(len(classes))):
        lines.append(
            f"There are {len(classes)} classes with numbers from {classes[0]} to {classes[-1]}, and"
            f" the trainer numbers their folders from 0 to {len(classes) - 1}."
        )
    return lines


def advice(setting: Setting) -> Sequence[str]:
    """What to set."""
    stride = setting.downscale
    lines = [
        f"Train with --use_cached --cached_path <the folder> --vae_embed_dim {setting.channels}"
        f" --vae_stride {stride}.",
    ]
    if not setting.mirrored:
        lines.append(
            "The store has no mirrored latents, so moments_flip holds the same latents again, and"
            " the trainer sees no mirrored pictures. To have them, encode with --flip both."
        )
    return lines


FORMAT = ExportFormat(
    name="mar",
    summary="LTH14/mar: an .npz of mean and log-variance for each picture, in folders of classes",
    variants=VARIANTS,
    fields=False,
    write=write,
    closing=closing,
    alone=True,
    needs=frozenset({"moments", "labels", "one_size", "square"}),
    advice=advice,
)
