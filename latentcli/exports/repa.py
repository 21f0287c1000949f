"""Writes the folder vae-sd/ of sihyun-yu/REPA: EDM2's files, of pictures in [-1, 1].

Source: REPA 67f71450, preprocessing/dataset_tools.py encode and dataset.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from latentcli.exports.edm2 import labels_file, name_of, stacked
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

FOLDER = "vae-sd"
VARIANTS = (
    Variant(name="sd", spaces=("sd1",), state="raw", suits="the VAE of SD 1 and 2", channels=4),
)


def write(samples: Sequence[ExportSample], number: int, setting: Setting) -> Group:
    """A file [2C, h, w] of each sample."""
    files = [
        File(f"{FOLDER}/{name_of(sample.index)}", npy_bytes(stacked(sample))) for sample in samples
    ]
    return Group(files, {"labels": [sample.label for sample in samples]})


def finish(facts: Sequence[Facts], setting: Setting) -> Sequence[File]:
    """The labels, by the names of the files."""
    file = labels_file(facts)
    return (File(f"{FOLDER}/{file.path}", file.data),)


def picture(sample: ExportSample) -> str:
    """The place of a sample's picture: the trainer sorts both listings and pairs by position."""
    digits = f"{sample.index:08d}"
    return f"{digits[:5]}/img{digits}"


def advice(setting: Setting) -> Sequence[str]:
    """What to set, and what has to lie beside."""
    side = setting.shape[0] * setting.downscale if setting.shape else 0
    return (
        f"Train with --data-dir=<the folder>. It pairs images/ with {FOLDER}/ by position: fill"
        " images/ with --link-images, which needs pictures that are"
        f" {side}x{side} already, or write them as images/00000/img00000000.png and so on in the"
        " store's order.",
    )


FORMAT = ExportFormat(
    name="repa",
    summary="sihyun-yu/REPA: vae-sd/ with an .npy of mean and deviation for each, and labels",
    variants=VARIANTS,
    fields=False,
    write=write,
    finish=finish,
    alone=True,
    flips=False,
    needs=frozenset({"moments", "labels", "one_size", "square"}),
    pictures="images",
    place=picture,
    advice=advice,
)
