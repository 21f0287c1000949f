"""Writes the latent caches of kohya-ss/musubi-tuner: a safetensors file for each picture, flat.

Source: musubi-tuner 30c658c4, dataset/cache_io.py save_latent_cache_common and
dataset/image_video_dataset.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from latentcli.exports.format import ExportFormat, ExportSample, File, Group, Setting, Variant
from latentcli.exports.names import sized, stem
from latentcli.exports.serialise import DTYPES, safetensors_bytes

PICTURES = "images"
VERSION = "1.0.1"

VARIANTS = (
    *(
        Variant(
            name=name,
            spaces=("flux2",),
            state="whitened",
            tag=tag,
            suits=suits,
            channels=128,
            step=16,
        )
        for name, tag, suits in (
            ("flux2_dev", "f2d", "FLUX.2 dev"),
            ("flux2_klein_4b", "f2k4b", "FLUX.2 klein 4B"),
            ("flux2_klein_9b", "f2k9b", "FLUX.2 klein 9B"),
        )
    ),
    Variant(
        name="z_image",
        spaces=("flux1",),
        state="raw",
        tag="zi",
        suits="Z-Image",
        channels=16,
        step=16,
    ),
)
"""FLUX.1 Kontext is none of them: its trainer wants latents of control pictures besides."""
ARCHITECTURES = {
    "f2d": "flux_2_dev",
    "f2k4b": "flux_2_klein_4b",
    "f2k9b": "flux_2_klein_9b",
    "zi": "z_image",
}
SCRIPTS = {
    "f2d": ("flux_2", " --model_version dev"),
    "f2k4b": ("flux_2", " --model_version klein-4b"),
    "f2k9b": ("flux_2", " --model_version klein-9b"),
    "zi": ("zimage", ""),
}
"""What the names of its scripts begin with, and what they are told of the model."""


def write(samples: Sequence[ExportSample], number: int, setting: Setting) -> Group:
    """`<stem>_<W>x<H>_<arch>.safetensors` of each."""
    return Group([file(sample, setting) for sample in samples])


def file(sample: ExportSample, setting: Setting) -> File:
    """The file of a sample: one tensor [C, h, w], whose name says its size and dtype."""
    tag = setting.variant.tag
    h, w = sample.latent.shape[-2:]
    # Z-Image's network sees a picture as a clip of one frame, but its tensor has no such axis.
    frames = "1x" if tag == "zi" else ""
    width, height = sample.original_size
    metadata = {
        "architecture": ARCHITECTURES[tag],
        "width": str(width),
        "height": str(height),
        "format_version": VERSION,
    }
    return File(
        f"{stem(sample.name)}_{sized(sample)}_{tag}.safetensors",
        safetensors_bytes(
            {f"latents_{frames}{h}x{w}_{setting.dtype}": sample.latent.to(DTYPES[setting.dtype])},
            metadata | setting.notes(),
        ),
    )


def advice(setting: Setting) -> Sequence[str]:
    """The data set's settings, and the caches that are still missing."""
    name, more = SCRIPTS[setting.variant.tag]
    row = [
        f'image_directory = "{setting.root or "THE FOLDER OF PICTURES"}"',
        f'cache_directory = "{setting.folder}"',
        'caption_extension = ".txt"',
    ]
    if setting.sizing is not None:
        row += [
            f"resolution = {list(setting.sizing.size)}",
            f"enable_bucket = {'true' if setting.sizing.rule else 'false'}",
            f"bucket_no_upscale = {'true' if setting.sizing.no_upscale else 'false'}",
        ]
    return (
        f"In its dataset config: {', '.join(row)}.",
        "The text encoder's caches are still missing, and without them every sample is skipped:"
        f" run {name}_cache_text_encoder_outputs.py --dataset_config FILE --text_encoder"
        f" WEIGHTS{more}",
        f"Do not run {name}_cache_latents.py on this folder: without --keep_cache it deletes files"
        " that are not in its dataset.",
    )


def problem(setting: Setting) -> str | None:
    """It looks for caches with a pattern that holds the folder's name."""
    if any(sign in setting.folder for sign in "[*?"):
        return (
            f"the name {setting.folder} contains a wildcard character ([, * or ?), and"
            " musubi-tuner finds no files in such a folder"
        )
    return None


FORMAT = ExportFormat(
    name="musubi",
    summary="kohya-ss/musubi-tuner: a safetensors file for each picture, in one folder",
    variants=VARIANTS,
    fields=False,
    write=write,
    path=stem,
    flips=False,
    dtypes=("float32", "bfloat16", "float16"),
    rule="musubi",
    unbucketed=True,
    pictures=PICTURES,
    flat=True,
    problem=problem,
    advice=advice,
)
