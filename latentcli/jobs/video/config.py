"""The two jobs of video distances as frozen dataclasses: what their command lines resolve to.

Importing this loads no torch. Every field has the name of its option.
"""

from __future__ import annotations

from dataclasses import dataclass

from latentcli.core.errors import UsageError
from latentcli.jobs.config import DecodeSettings

PREPROCESS = {
    "cdfvd": "divided by 255, then bilinear without antialias (as cd-fvd)",
    "published": "bicubic by Pillow in 8 bits, then divided by 255 (as the published script)",
}
"""How a frame is brought to the network's size; its aspect ratio is not kept by either."""
COMPAT = {
    "centred": "covariances about the means: the Frechet distance",
    "uncentred": "raw second moments in place of covariances, as in the published script: no"
    " Frechet distance, and to be compared with that script's figures alone",
}
"""What stands for C in the formula."""

VIDEO_CHOICES = {"preprocess": tuple(PREPROCESS), "compat": tuple(COMPAT)}


@dataclass(frozen=True, kw_only=True)
class VideoEmbedJob(DecodeSettings):
    """Clips to a file of features."""

    sources: tuple[str, ...] = ()
    output: str = ""
    weights: str | None = None
    """Of the network that makes the features."""
    frames: int = 16
    """Frames of a group, which gives one feature vector."""
    size: int = 224
    preprocess: str = "cdfvd"
    batch_size: int | None = None
    """Groups at once; None is 1 on a CPU and 8 on a GPU."""
    stride: int = 1
    """Of a clip, every so many frames."""
    max_pixels: int = 89_478_485
    on_error: str = "skip"
    max_bad: str | None = None
    model: str | None = None
    """The autoencoder that the frames go through first; None is none."""
    model_weights: str | None = None
    revision: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    """Of the autoencoder; the features are made in float32."""


@dataclass(frozen=True, kw_only=True)
class VideoDistanceJob:
    """Two files of features to their distance."""

    a: str = ""
    b: str = ""
    compat: str = "centred"
    force: bool = False
    """Compare although the files say that they were made in different ways."""


def check_video_choices(job: VideoEmbedJob | VideoDistanceJob) -> None:
    """UsageError where a field has a value outside its choices."""
    for name, allowed in VIDEO_CHOICES.items():
        value = getattr(job, name, None)
        if value is not None and value not in allowed:
            raise UsageError(f"--{name} is {value!r}; allowed are {', '.join(allowed)}.")
