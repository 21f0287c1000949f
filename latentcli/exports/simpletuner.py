"""Writes SimpleTuner's VAE cache: a tensor in a .pt file for each picture, by the hash of its name.

Source: SimpleTuner bc8e6ab7, helpers/caching/vae.py generate_vae_cache_filename and
helpers/data_backend/local.py torch_save.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence

from latentcli.exports.format import (
    ExportFormat,
    ExportSample,
    File,
    Group,
    Setting,
    Sizing,
    Variant,
)
from latentcli.exports.names import folder, stem
from latentcli.exports.serialise import DTYPES, torch_bytes

CACHE = "vae"
PICTURES = "images"
USUAL_STEP = 64

VARIANTS = (
    Variant(name="sd1", spaces=("sd1",), state="scaled", suits="SD 1 and 2", channels=4),
    Variant(name="sdxl", spaces=("sdxl",), state="scaled", suits="SDXL", channels=4),
    Variant(name="sd3", spaces=("sd3",), state="scaled", suits="SD 3", channels=16),
    Variant(name="flux1", spaces=("flux1",), state="scaled", suits="FLUX.1, Z-Image", channels=16),
    Variant(
        name="flux2", spaces=("flux2",), state="whitened", suits="FLUX.2", channels=128, step=16
    ),
)


def write(samples: Sequence[ExportSample], number: int, setting: Setting) -> Group:
    """`vae/<folder>/<hash of the stem>.pt` of each: a bare tensor [C, h, w]."""
    dtype = DTYPES[setting.dtype]
    return Group(
        [
            # Of a view torch.save writes all that it looks at.
            File(cache_name(sample.name), torch_bytes(sample.latent.to(dtype).contiguous().clone()))
            for sample in samples
        ]
    )


def cache_name(name: str) -> str:
    """Path of the file of a picture; no size, model or suffix takes part in the hash."""
    digest = hashlib.sha256(stem(name).encode("utf-8", "surrogateescape")).hexdigest()
    return f"{CACHE}/{folder(name)}{digest}.pt"


def advice(setting: Setting) -> Sequence[str]:
    """The entry of its data sets, and what else it does."""
    row: dict[str, object] = {
        "id": "latents",
        "type": "local",
        "instance_data_dir": setting.root or "THE FOLDER OF PICTURES",
        "cache_dir_vae": f"{setting.folder}/{CACHE}",
        "caption_strategy": "textfile",
    }
    if setting.sizing is not None:
        row |= sizes(setting.sizing)
    align = alignment(setting)
    return (
        f"In the dataset config: {json.dumps(row, ensure_ascii=False)}",
        f"Train with --aspect_bucket_alignment={align}. SimpleTuner opens the pictures, and reads"
        " captions from .txt files beside them; it encodes the captions itself.",
        "Before a long run, compare target_size in its metadata JSON with the sizes of the"
        " latents: they can differ, because of a size that it remembers for an aspect ratio, or a"
        " limit of the model.",
    )


def sizes(sizing: Sizing) -> dict[str, object]:
    """How its data set says a size."""
    row: dict[str, object] = {"crop": True, "crop_style": "center"}
    if not sizing.rule:
        size: dict[str, object] = {"resolution": sizing.size[0], "resolution_type": "pixel"}
        return row | {"crop_aspect": "square"} | size
    if sizing.rule == "simpletuner-pixel":
        size = {"resolution": sizing.size[0], "resolution_type": "pixel"}
    elif sizing.side is not None:
        size = {"resolution": sizing.side, "resolution_type": "pixel_area"}
    else:
        size = {"resolution": math.prod(sizing.size) / 1e6, "resolution_type": "area"}
    return row | {"crop_aspect": "preserve"} | size


def alignment(setting: Setting) -> int:
    """Pixels that sizes are rounded to: the buckets' step, or one that keeps the size."""
    sizing = setting.sizing
    if setting.variant.step is not None or sizing is None:
        return setting.variant.step or USUAL_STEP
    return sizing.step if sizing.rule else math.gcd(USUAL_STEP, *sizing.size)


FORMAT = ExportFormat(
    name="simpletuner",
    summary="SimpleTuner: its VAE cache, a .pt file for each picture",
    variants=VARIANTS,
    fields=False,
    write=write,
    path=lambda name: name,
    flips=False,
    dtypes=("bfloat16", "float32", "float16"),
    rule="simpletuner",
    unbucketed=True,
    square=True,
    pictures=PICTURES,
    advice=advice,
)
