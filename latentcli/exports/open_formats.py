"""Holds what formats that are read without a trainer in mind have in common."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from latentcli.core.errors import StoreError
from latentcli.exports.format import ExportSample, Setting, Variant
from latentcli.exports.serialise import DTYPES, Array

ANY = (
    Variant(
        name="any",
        spaces=(),
        state="normal",
        suits="latents of any model, for a training loop of one's own",
    ),
)
NO_CLASS = -1
"""The class of a sample that has none, in a column of whole numbers of which others have one."""


def stored(latent: Tensor, setting: Setting) -> Array:
    """A latent [C, h, w] in the dtype of the export."""
    return latent.to(DTYPES[setting.dtype]).contiguous().numpy()


def latents_of(sample: ExportSample, setting: Setting) -> dict[str, Tensor]:
    """The latent as `latent` and, where the store has it, that of the mirrored picture."""
    found = {"latent": sample.latent}
    if setting.mirrored and sample.mirrored is not None:
        found["latent_flip"] = sample.mirrored
    return found


def half_bytes(sample: ExportSample) -> bytes:
    """The values of a latent as bare float16; StoreError where float16 cannot hold them."""
    half = sample.latent.half()
    if not half.isfinite().all():
        raise StoreError(
            f"The latent of {sample.key!r} has values that float16 cannot hold, and the column of"
            " bare bytes is float16; leave --bytes-column out."
        )
    return half.contiguous().view(torch.uint8).numpy().tobytes()


def class_of(sample: ExportSample) -> int:
    """The number of the class, or that of none."""
    return NO_CLASS if sample.label is None else sample.label


def sizes(sample: ExportSample) -> dict[str, Any]:
    """Size of the picture, size before the crop and the crop, in pixels; lists of whole numbers."""
    return {
        "original_size": list(sample.original_size),
        "resized_size": list(sample.resized_size),
        "crop": list(sample.crop),
    }


def described(sample: ExportSample, setting: Setting) -> dict[str, Any]:
    """All that is known of a sample beside its latent; JSON values."""
    known: dict[str, Any] = {"key": sample.key, **sizes(sample)}
    if sample.label is not None:
        known["label"] = sample.label
        if setting.labels:
            known["class"] = setting.labels[sample.label]
    return {**sample.fields, **known, "latent_space": f"{setting.space}#{setting.state}"}


def state_advice(setting: Setting) -> str:
    """Which latents the files hold, which no file of the format says."""
    if setting.state == "raw":
        then = "as the autoencoder gives them; most models are trained on scaled or whitened ones."
    else:
        then = "as models are trained on them: nothing has to be multiplied or shifted."
    return f"The latents are {setting.state} ones of {setting.space}, {setting.dtype}, {then}"
