"""Writes the npz latent caches of kohya-ss/sd-scripts, a file for each picture beside it.

Source: sd-scripts 48d368fa, library/strategy_base.py and strategy_sd.py, strategy_sd3.py,
strategy_flux.py, strategy_lumina.py; the trainer's own files are the tests' reference.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from bisect import bisect_left
from collections.abc import Mapping, Sequence

import numpy as np

from latentcli.exports.format import (
    ExportFormat,
    ExportSample,
    File,
    Group,
    Setting,
    Sizing,
    Variant,
)
from latentcli.exports.names import folder, sized
from latentcli.exports.serialise import Array, npz_bytes

PLAIN = ("_sd", "_sdxl")
"""Suffixes of files whose keys do not name the latents' size, and which have room for one."""


def variant(name: str, space: str, state: str, suits: str, channels: int, whole: int) -> Variant:
    """The files of one model, which its scripts know by the suffix _<name>.npz."""
    return Variant(
        name=name,
        spaces=(space,),
        state=state,
        tag=f"_{name}",
        suits=suits,
        channels=channels,
        whole=whole,
        joins=f"_{name}" not in PLAIN,
    )


VARIANTS = (
    variant("sd", "sd1", "raw", "SD 1 and 2", 4, whole=64),
    variant("sdxl", "sdxl", "raw", "SDXL", 4, whole=32),
    variant("sd3", "sd3", "raw", "SD 3", 16, whole=8),
    variant("flux", "flux1", "scaled", "FLUX.1", 16, whole=16),
    variant("lumina", "flux1", "scaled", "Lumina 2", 16, whole=16),
)


def write(samples: Sequence[ExportSample], number: int, setting: Setting) -> Group:
    """`<name>_<W>x<H><suffix>.npz` of each; latents are float32 whatever the store has."""
    files = [
        File(f"{sample.name}_{sized(sample)}{setting.variant.tag}.npz", archive(sample, setting))
        for sample in samples
    ]
    return Group(files)


def archive(sample: ExportSample, setting: Setting) -> bytes:
    """The npz file of a sample."""
    h, w = sample.latent.shape[-2:]
    end = "" if setting.variant.tag in PLAIN else f"_{h}x{w}"
    bucket = w * setting.downscale, h * setting.downscale
    arrays: dict[str, Array] = {
        f"latents{end}": sample.latent.numpy(),
        f"original_size{end}": np.array(sample.original_size, dtype=np.int64),
        f"crop_ltrb{end}": np.array(fitted(sample.original_size, bucket), dtype=np.float64),
    }
    if sample.mirrored is not None:
        arrays[f"latents_flipped{end}"] = sample.mirrored.numpy()
    return npz_bytes(arrays)


def merge(there: bytes, new: bytes) -> bytes:
    """One archive may hold a picture at several resolutions: the new arrays join the others.

    Where keys do not name the size nothing of the first stays: its mirrored latents or its mask
    may be of another size. ValueError where the first is no archive of arrays.
    """
    arrays, added = arrays_of(there), arrays_of(new)
    return new if "latents" in added else npz_bytes(arrays | added)


def arrays_of(data: bytes) -> dict[str, Array]:
    """The arrays of an npz file; ValueError where it is damaged."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"it is not an archive of arrays: {error}") from error


def fitted(size: tuple[int, int], bucket: tuple[int, int]) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) of a picture (W, H) that is fitted into its bucket (W, H).

    This is what the trainer keeps as crop_ltrb and gives SDXL as the crop: not the crop that was
    made, for which the picture covers the bucket.
    """
    (width, height), (bucket_width, bucket_height) = size, bucket
    aspect = width / height
    if bucket_width / bucket_height > aspect:
        inner = bucket_height * aspect, float(bucket_height)
    else:
        inner = float(bucket_width), bucket_width / aspect
    left, top = (bucket_width - inner[0]) // 2, (bucket_height - inner[1]) // 2
    return left, top, left + inner[0], top + inner[1]


def mistaken(with_latent: Sequence[str], without: Sequence[str]) -> Mapping[str, str]:
    """Pictures whose names begin those of others in their folder, and that have no file here.

    The trainer looks up a picture's size by what the names of caches begin with, and gives such a
    picture the size of the other.
    """
    names = sorted(with_latent)
    found = {}
    for name in without:
        place = bisect_left(names, name)
        other = names[place] if place < len(names) else ""
        if other.startswith(name) and other != name and folder(other) == folder(name):
            found[name] = other
    return found


def hides(name: str, setting: Setting) -> str:
    """The name of older caches of SD and SDXL, which are read first."""
    return f"{name}.npz" if setting.variant.tag in PLAIN else ""


def advice(setting: Setting) -> Sequence[str]:
    """What the trainer needs."""
    row = [
        f'image_dir = "{setting.root or "THE FOLDER OF PICTURES"}"',
        'caption_extension = ".txt"',
    ]
    if setting.sizing is not None:
        row += sizes(setting.sizing)
    if setting.mirrored:
        row.append("flip_aug = true")
    lines = [
        f"In its dataset config: {', '.join(row)}. List each subfolder as a subset of its own."
    ]
    if setting.root != setting.folder:
        lines.append(
            f"The files must be beside the pictures: copy {setting.folder} over"
            f" {setting.root or 'their folder'}, or export there, or use --link-images."
        )
    return (
        *lines,
        "Train with --cache_latents --cache_latents_to_disk; captions are read from .txt files"
        " beside the pictures, and text encoders are run by the trainer.",
    )


def sizes(sizing: Sizing) -> list[str]:
    """The settings of its buckets, or of the one size."""
    if not sizing.rule:
        return [f"resolution = {sizing.resolution}", "enable_bucket = false"]
    row = [
        f"resolution = {sizing.resolution}",
        "enable_bucket = true",
        f"bucket_reso_steps = {sizing.step}",
    ]
    if sizing.no_upscale:
        return [*row, "bucket_no_upscale = true"]
    return [
        *row,
        f"min_bucket_reso = {sizing.min_side}",
        f"max_bucket_reso = {sizing.max_side}",
    ]


FORMAT = ExportFormat(
    name="kohya",
    summary="kohya-ss/sd-scripts: an .npz for each picture, beside it",
    variants=VARIANTS,
    fields=False,
    write=write,
    merge=merge,
    path=lambda name: name,
    rule="kohya",
    unbucketed=True,
    pictures=".",
    hides=hides,
    mistaken=mistaken,
    advice=advice,
)
