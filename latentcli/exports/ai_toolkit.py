"""Writes ai-toolkit's latent cache: a safetensors file for each picture, by a hash of its geometry.

Source: ai-toolkit 27a03a91, toolkit/dataloader_mixins.py get_latent_info_dict and get_latent_path,
toolkit/metadata.py get_meta_for_safetensors.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence

from torch import Tensor

from latentcli.exports.format import ExportFormat, ExportSample, File, Group, Setting, Variant
from latentcli.exports.names import folder
from latentcli.exports.serialise import DTYPES, safetensors_bytes

CACHE = "_latent_cache"
SOFTWARE = {
    "name": "ai-toolkit",
    "repo": "https://github.com/ostris/ai-toolkit",
    "version": "0.12.26",
}
"""What its own writer puts into the metadata, with the version that these files are like."""


def variant(
    name: str, space: str, suits: str, channels: int, step: int | None = 16, tag: str = ""
) -> Variant:
    """One architecture; `tag` is what it calls the latent space, where that is not its name."""
    state = "whitened" if space == "flux2" else "scaled"
    return Variant(
        name=name,
        spaces=(space,),
        state=state,
        tag=tag or name,
        suits=suits,
        channels=channels,
        step=step,
    )


VARIANTS = (
    variant("sd1", "sd1", "SD 1", 4),
    variant("sdxl", "sdxl", "SDXL", 4),
    variant("sd3", "sd3", "SD 3", 16, step=None),
    variant("flux", "flux1", "FLUX.1", 16, step=32, tag="flux1"),
    variant("flux_kontext", "flux1", "FLUX.1 Kontext", 16),
    variant("chroma", "flux1", "Chroma", 16, step=32),
    variant("zimage", "flux1", "Z-Image", 16),
    variant("flux2", "flux2", "FLUX.2 dev", 128),
    variant("flux2_klein_4b", "flux2", "FLUX.2 klein 4B", 128),
    variant("flux2_klein_9b", "flux2", "FLUX.2 klein 9B", 128),
)


def write(samples: Sequence[ExportSample], number: int, setting: Setting) -> Group:
    """`<folder>/_latent_cache/<stem>_<hash>.safetensors` of each, and of each mirrored one."""
    files = []
    for sample in samples:
        about = geometry(sample, setting.variant.tag)
        files.append(file(sample, sample.latent, about, setting))
        if sample.mirrored is not None:
            files.append(file(sample, sample.mirrored, about | {"flip_x": True}, setting))
    return Group(files)


def geometry(sample: ExportSample, version: str) -> dict[str, object]:
    """What the hash is made of: the picture's file name, and how it was brought to size.

    Nothing else takes part: not the folder, the content, the dtype or the weights.
    """
    left, top, right, bottom = sample.crop
    return {
        "filename": sample.filename,
        "scale_to_width": sample.resized_size[0],
        "scale_to_height": sample.resized_size[1],
        "crop_x": left,
        "crop_y": top,
        "crop_width": right - left,
        "crop_height": bottom - top,
        "latent_space_version": version,
        "latent_version": 1,
    }


def file(
    sample: ExportSample, latent: Tensor, about: Mapping[str, object], setting: Setting
) -> File:
    """The file of a sample, or of its mirrored form."""
    texts = {name: v if isinstance(v, str) else json.dumps(v) for name, v in about.items()}
    metadata = {**texts, "software": json.dumps(SOFTWARE), "format": "pt", **setting.notes()}
    stem = sample.filename.rpartition(".")[0] or sample.filename
    return File(
        f"{folder(sample.name)}{CACHE}/{stem}_{digest(about)}.safetensors",
        safetensors_bytes({"latent": latent.to(DTYPES[setting.dtype])}, metadata),
    )


def digest(about: Mapping[str, object]) -> str:
    """MD5 of the JSON text with sorted keys, in base64 for URLs, without its padding."""
    text = json.dumps(about, sort_keys=True)
    return base64.urlsafe_b64encode(hashlib.md5(text.encode()).digest()).decode().rstrip("=")


def advice(setting: Setting) -> Sequence[str]:
    """What to set for the data set."""
    row = [f"folder_path: {setting.root or 'THE FOLDER OF PICTURES'}"]
    if setting.sizing is not None:
        row.append(f"resolution: {setting.sizing.side or setting.sizing.resolution}")
    row += ["cache_latents_to_disk: true", "buckets: true", "random_crop: false"]
    if setting.mirrored:
        row.append("flip_x: true")
    lines = [f"In its dataset config: {', '.join(row)}."]
    if setting.root != setting.folder:
        lines.append(
            f"Each {CACHE} must be in the folder of its pictures: copy {setting.folder} over"
            f" {setting.root or 'that folder'}, or export there, or use --link-images."
        )
    return (*lines, "ai-toolkit encodes the captions itself, from .txt files beside the pictures.")


def problem(setting: Setting) -> str | None:
    """Its resolution is one number."""
    if setting.sizing is not None and setting.sizing.side is None:
        return (
            "the area is not a square, and ai-toolkit takes one side: use an area such as --area"
            " 1024"
        )
    return None


FORMAT = ExportFormat(
    name="ai-toolkit",
    summary="ostris/ai-toolkit: its _latent_cache folders, a safetensors file for each picture",
    variants=VARIANTS,
    fields=False,
    write=write,
    needs=frozenset({"files"}),
    dtypes=("bfloat16", "float32", "float16"),
    rule="ai-toolkit",
    pictures=".",
    problem=problem,
    advice=advice,
)
