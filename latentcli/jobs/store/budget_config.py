"""Holds the budget job: what its command line or job file resolves to.

Importing this loads no torch.
"""

from __future__ import annotations

from dataclasses import dataclass

from latentcli.core.options import like, option
from latentcli.jobs.config import BUNDLED_MODEL
from latentcli.jobs.settings.images import ImageIntake
from latentcli.jobs.settings.model import MODEL, ModelSettings, model_option


@dataclass(frozen=True, kw_only=True)
class BudgetJob(ModelSettings):
    """What each --store-dtype costs, in bytes and in quality."""

    sources: tuple[str, ...] = like(
        ImageIntake,
        "sources",
        help="A store, or images as encode takes them: folders, files, tars, tables, globs, URLs.",
        metavar="STORE|SRC",
        needed="Give a store, or pictures to measure it on.",
    )
    samples: int = option(
        16,
        "Images to measure, spread over the store or the sources. Default: 16.",
        section="measure",
        daily=True,
        least=1,
    )
    model: str | None = model_option(
        None, f"{MODEL} Default: the one that the store names; for images {BUNDLED_MODEL}."
    )
    image_field: str | None = like(ImageIntake, "image_field")
    image_root: str | None = like(ImageIntake, "image_root")
    include: tuple[str, ...] = like(ImageIntake, "include")
    exclude: tuple[str, ...] = like(ImageIntake, "exclude")
    limit: int | None = like(ImageIntake, "limit")
    alpha: str = like(ImageIntake, "alpha")
    max_pixels: int = like(ImageIntake, "max_pixels")
    size: str | None = like(ImageIntake, "size")
    resize: str | None = like(ImageIntake, "resize")
    filter: str = like(ImageIntake, "filter")
    exact_resize: bool = like(ImageIntake, "exact_resize")
    area: str | None = like(ImageIntake, "area")
    bucket_rule: str = like(ImageIntake, "bucket_rule")
    bucket_step: int | None = like(ImageIntake, "bucket_step")
    bucket_min: int | None = like(ImageIntake, "bucket_min")
    bucket_max: int | None = like(ImageIntake, "bucket_max")
    no_upscale: bool = like(ImageIntake, "no_upscale")
    buckets: str | None = like(ImageIntake, "buckets")


def intake_of(job: BudgetJob) -> ImageIntake:
    """How the pictures of a budget are read: as encode does, where not told otherwise."""
    known = ImageIntake.__dataclass_fields__.keys() & BudgetJob.__dataclass_fields__.keys()
    return ImageIntake(media="images", **{name: getattr(job, name) for name in known})
