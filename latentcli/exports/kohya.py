"""Writes the npz latent caches of kohya-ss/sd-scripts, a file for each picture beside it.

Source: sd-scripts 48d368fa, library/strategy_base.py and strategy_sd.py, strategy_sd3.py,
strategy_flux.py, strategy_lumina.py; the trainer's own files are the tests' reference.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Sequence

import numpy as np

from latentcli.exports.format import ExportFormat, ExportSample, File, Group, Setting, Variant
from latentcli.exports.names import sized
from latentcli.exports.serialise import Array, npz_bytes

VARIANTS = (
    Variant(name="sd", spaces=("sd1",), state="raw", tag="_sd", suits="SD 1 and 2", channels=4),
    Variant(name="sdxl", spaces=("sdxl",), state="raw", tag="_sdxl", suits="SDXL", channels=4),
    Variant(name="sd3", spaces=("sd3",), state="raw", tag="_sd3", suits="SD 3", channels=16),
    Variant(name="flux", spaces=("flux1",), state="scaled", tag="_flux", suits="FLUX.1"),
    Variant(name="lumina", spaces=("flux1",), state="scaled", tag="_lumina", suits="Lumina 2"),
)
PLAIN = ("_sd", "_sdxl")
"""Suffixes of files whose keys do not name the latents' size."""


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

    ValueError where the first is no archive of arrays.
    """
    arrays = arrays_of(there)
    return npz_bytes(arrays | arrays_of(new))


def arrays_of(data: bytes) -> dict[str, Array]:
    """The arrays of an npz file; ValueError where it is damaged."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"it is no archive of arrays: {error}") from error


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


def advice(setting: Setting) -> Sequence[str]:
    """What the trainer needs."""
    flips = "; flip_aug = true" if setting.mirrored else ""
    return (
        "Put the files beside the pictures, or use --link-images.",
        f"Train with --cache_latents --cache_latents_to_disk{flips}; captions are read from .txt"
        " files beside the pictures, and text encoders are run by the trainer.",
    )


FORMAT = ExportFormat(
    name="kohya",
    summary="kohya-ss/sd-scripts: an .npz for each picture, to lie beside it",
    variants=VARIANTS,
    write=write,
    merge=merge,
    path=lambda name: name,
    rule="kohya",
    unbucketed=True,
    pictures=".",
    advice=advice,
)
