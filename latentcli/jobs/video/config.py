"""Holds the two jobs of video distances as frozen dataclasses of options; loads no torch."""

from __future__ import annotations

from dataclasses import dataclass

from latentcli.core.options import like, option
from latentcli.jobs.runtime.given_names import check_features, check_source, check_weights
from latentcli.jobs.settings.follow import FollowSettings
from latentcli.jobs.settings.images import NO_SOURCES, ImageIntake
from latentcli.jobs.settings.model import MODEL, DecodeSettings, ModelSettings, model_option

PREPROCESS = {
    "cdfvd": "divided by 255, then bilinear without antialias (as cd-fvd)",
    "published": "bicubic by Pillow in 8 bits, then divided by 255 (as the published script)",
}
"""How a frame is brought to the network's size; its aspect ratio is not kept by either."""
COMPAT = {
    "centred": "covariances about the means: the Frechet distance",
    "uncentred": "raw second moments in place of covariances, as in the published script: no"
    " Frechet distance, to be compared only with that script's figures",
}
"""What stands for C in the formula."""
FEATURES = "file of features: of video-embed, .npy, .npz, or .safetensors with one 2-D tensor."


@dataclass(frozen=True, kw_only=True)
class VideoEmbedJob(FollowSettings, DecodeSettings, ModelSettings):
    """Clips to a file of features."""

    sources: tuple[str, ...] = option(
        (),
        "Video files, folders (searched recursively), quoted globs, or @list.txt with one path"
        " per line.",
        argument=True,
        section="read",
        metavar="CLIPS",
        needed=NO_SOURCES,
        exists=check_source,
    )
    output: str = option(
        "",
        "File of the features, which must end in .safetensors.",
        section="write",
        daily=True,
        metavar="FEATURES",
        flags=("--output", "-o"),
    )
    weights: str | None = like(
        ModelSettings,
        "weights",
        help="File or folder of the VideoMAE V2 weights. Default:"
        " $LATENTCLI_WEIGHTS/videomae_v2_giant/, then the Hugging Face cache, then the Hub.",
    )
    frames: int = option(
        16,
        "Frames of a group, which gives one feature vector; a shorter rest is dropped. Default:"
        " 16; the published script has 8.",
        section="decode_image",
        panel="preprocess",
        daily=True,
        least=1,
    )
    size: int = option(
        224,
        "Frames are resized to N x N pixels for the network. Default: 224.",
        section="preprocess",
        daily=True,
    )
    preprocess: str = option(
        "cdfvd",
        "How frames are resized: cdfvd (default; bilinear, as cd-fvd), or published (bicubic by"
        " Pillow, as the published script).",
        section="preprocess",
        daily=True,
        choices=tuple(PREPROCESS),
    )
    batch_size: int | None = option(
        None,
        "Groups of frames per batch. Default: 1 on a CPU, 8 on a GPU.",
        section="batch",
        daily=True,
        least=1,
        flags=("--batch-size", "-b"),
    )
    stride: int = like(ImageIntake, "stride")
    max_pixels: int = like(ImageIntake, "max_pixels")
    on_error: str = like(ImageIntake, "on_error")
    max_bad: str | None = like(ImageIntake, "max_bad")
    model: str | None = model_option(
        None,
        f"Encode and decode the frames with this autoencoder first. {MODEL} Default: the frames as"
        " they are.",
    )
    model_weights: str | None = option(
        None,
        "File or folder of the weights of --model. Default: where other commands look for them.",
        section="model",
        metavar="PATH",
        exists=check_weights,
    )


@dataclass(frozen=True, kw_only=True)
class VideoDistanceJob:
    """Two files of features to their distance."""

    a: str = option("", f"First {FEATURES}", argument=True, section="read", exists=check_features)
    b: str = option("", f"Second {FEATURES}", argument=True, section="read", exists=check_features)
    compat: str = option(
        "centred",
        "centred (default): the Frechet distance. uncentred: with raw second moments instead of"
        " covariances, to compare with figures of the published script.",
        section="measure",
        choices=tuple(COMPAT),
        metavar="centred|uncentred",
    )
    force: bool = option(
        False,
        "Compare features even if they were made differently. Default: refuse.",
        section="model",
    )
