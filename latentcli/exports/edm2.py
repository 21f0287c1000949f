"""Writes the npy files of NVlabs/edm2: mean and deviation of each latent, and one list of labels.

Source: edm2 4bf8162f, dataset_tool.py encode, training/dataset.py and training/encoders.py.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
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
from latentcli.exports.serialise import npy_bytes
from latentcli.exports.sums import Statistics, merged, sums_of

LABELS = "dataset.json"
STATISTICS = "raw_statistics.json"
"""No reader looks at it: it is for people."""
VARIANTS = (
    Variant(name="sd", spaces=("sd1",), state="raw", suits="the VAE of SD 1 and 2", channels=4),
    Variant(name="sdxl", spaces=("sdxl",), state="raw", suits="SDXL's VAE", channels=4),
)


def write(samples: Sequence[ExportSample], number: int, setting: Setting) -> Group:
    """A file [2C, h, w] of each sample, and what `finish` has to know of it."""
    files = [File(name_of(sample.index), npy_bytes(stacked(sample))) for sample in samples]
    moments = [sample.moments for sample in samples if sample.moments is not None]
    mean, std = (torch.stack([row[at] for row in moments]).numpy() for at in (0, 1))
    return Group(files, {"labels": [sample.label for sample in samples], **sums_of(mean, std)})


def name_of(index: int) -> str:
    """The path of a sample's file: a folder of a thousand, and a number of eight digits."""
    digits = f"{index:08d}"
    return f"{digits[:5]}/img-mean-std-{digits}.npy"


def stacked(sample: ExportSample) -> np.typing.NDArray[np.float32]:
    """Mean, then standard deviation, along the channels; not the logarithm of a variance."""
    assert sample.moments is not None
    array: np.typing.NDArray[np.float32] = torch.cat(sample.moments[:2]).numpy()
    return array


def finish(facts: Sequence[Facts], setting: Setting) -> Sequence[File]:
    """The labels, null where a sample has none, and the statistics that a person has to set."""
    files = [labels_file(facts)]
    found = merged(facts)
    if found is not None:
        mean, std = found.rounded()
        text = json.dumps({"raw_mean": mean, "raw_std": std})
        files.append(File(STATISTICS, text.encode()))
    return files


def labels_file(facts: Sequence[Facts]) -> File:
    """The list of names and classes."""
    numbers = [label for group in facts for label in group["labels"]]
    labels = None
    if None not in numbers:
        labels = [[name_of(index), label] for index, label in enumerate(numbers)]
    return File(LABELS, json.dumps({"labels": labels}).encode())


def closing(facts: Sequence[Facts], setting: Setting) -> Sequence[str]:
    """The constants of these latents, as the trainer's encoder takes them."""
    found = merged(facts)
    return () if found is None else (constants(found),)


def constants(found: Statistics) -> str:
    """What to set for latents of these statistics."""
    mean, std = found.rounded()
    return (
        f"Set raw_mean={mean} and raw_std={std} of StabilityVAEEncoder (training/encoders.py; also"
        f" in {STATISTICS}): its own values are for pictures in [0, 1], and these latents are of"
        " pictures in [-1, 1]. Change its previews too: the VAE's input and output must be in"
        " [-1, 1]."
    )


def advice(setting: Setting) -> Sequence[str]:
    """What to set."""
    lines = ["Train with --data=<the folder>; a zip must be uncompressed (zip -0)."]
    if setting.variant.name != "sd":
        lines.append(f"Set vae_name to {setting.variant.suits} too.")
    return lines


FORMAT = ExportFormat(
    name="edm2",
    summary="NVlabs/edm2: an .npy of mean and deviation for each picture, and dataset.json",
    variants=VARIANTS,
    fields=False,
    write=write,
    finish=finish,
    closing=closing,
    alone=True,
    flips=False,
    needs=frozenset({"moments", "one_size", "square"}),
    advice=advice,
)
