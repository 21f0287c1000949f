"""Resolves a job's size options against a model's size rule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from latentcli.core.errors import UsageError
from latentcli.core.pixel_size import pixel_size
from latentcli.images.buckets import Buckets, make_buckets, read_buckets
from latentcli.images.preprocess import PreprocessSpec, resizer
from latentcli.images.size_filter import SizeFilter
from latentcli.jobs.settings.images import ImageIntake

REDUCING_GAPS = (2, 3, 3)
"""Pixels that remain, of a half, a quarter and an eighth, for each one of a resized side."""


def preprocess_spec(job: ImageIntake, divisor: int) -> PreprocessSpec:
    """--size, --resize, the buckets and --filter resolved against a model's size rule."""
    buckets = job.area is not None or job.buckets is not None
    resize = job.resize or ("crop" if job.size else "bucket" if buckets else "none")
    check_resize(job, resize)
    gaps = None if job.exact_resize or resize == "none" else reducing_gaps(job.filter)
    if resize == "bucket":
        return PreprocessSpec(None, divisor, job.filter, chosen_buckets(job, divisor), gaps)
    size = pixel_size(job.size, "--size") if job.size else None
    return PreprocessSpec(size, divisor, job.filter, reducing_gaps=gaps)


def reducing_gaps(filter: str) -> tuple[int, ...] | None:
    """The gaps of PreprocessSpec that a job takes; docs/internals/numerics.md has what they change.

    The box filter takes each pixel whole or not at all, so it needs those that the file has.
    """
    return None if filter == "box" else REDUCING_GAPS


def check_resize(job: ImageIntake, resize: str) -> None:
    """UsageError where the options of one way to resize are given with another."""
    of_buckets = {
        "--area": job.area,
        "--buckets": job.buckets,
        "--bucket-step": job.bucket_step,
        "--bucket-min": job.bucket_min,
        "--bucket-max": job.bucket_max,
        "--no-upscale": job.no_upscale,
        "--bucket-rule": job.bucket_rule != "area",
    }
    given = [option for option, value in of_buckets.items() if value]
    if resize != "bucket" and given:
        other = f"--resize {job.resize}" if job.resize else f"--size {job.size}"
        if job.resize is None and job.size is None:
            raise UsageError(f"{given[0]} is for buckets: give an --area too, such as --area 1024.")
        raise UsageError(f"{given[0]} is for --resize bucket, and not for {other}: leave one out.")
    if resize == "bucket" and job.size is not None:
        raise UsageError(
            f"--resize bucket takes an --area, such as --area 1024, or --buckets FILE; leave out"
            f" --size {job.size}."
        )
    if resize == "bucket" and (job.area is None) == (job.buckets is None):
        raise UsageError(
            "--resize bucket needs either an --area, such as --area 1024, or --buckets FILE."
        )
    if job.buckets is not None and len(given) > 1:
        raise UsageError(
            f"--buckets gives the sizes themselves; leave out"
            f" {next(option for option in given if option != '--buckets')}."
        )
    if resize == "none" and job.size is not None:
        raise UsageError(
            f"--resize none keeps each picture's own size; leave out --size {job.size}."
        )
    if resize == "crop" and job.size is None:
        raise UsageError("--resize crop needs a --size, such as --size 256 or --size 512x256.")


def chosen_buckets(job: ImageIntake, divisor: int) -> Buckets:
    """The buckets of a job that takes them."""
    if job.buckets is not None:
        return read_buckets(job.buckets, divisor)
    return make_buckets(
        *(job.bucket_rule, pixel_size(job.area or "", "--area"), job.bucket_step, divisor),
        no_upscale=job.no_upscale,
        min_side=job.bucket_min,
        max_side=job.bucket_max,
    )


def preprocess_fields(preprocess: PreprocessSpec) -> dict[str, Any]:
    """How pictures are brought to size, as a store's spec says it."""
    resized = preprocess.size is not None or preprocess.buckets is not None
    fields: dict[str, Any] = {
        "resize": "bucket" if preprocess.buckets else "crop" if preprocess.size else "none",
        "size": list(preprocess.size) if preprocess.size else None,
        "filter": preprocess.filter if resized else None,
        "resizer": resizer(preprocess.filter) if resized else None,
        "divisor": preprocess.divisor,
    }
    if preprocess.buckets is not None:
        fields["buckets"] = preprocess.buckets.described()
    if preprocess.reducing_gaps is not None:
        fields["reducing_gaps"] = list(preprocess.reducing_gaps)
    return fields


def stored_gaps(spec: Mapping[str, Any]) -> tuple[float, ...] | None:
    """The gaps of PreprocessSpec that a store's spec says; stores without decode files whole."""
    preprocess = spec.get("preprocess")
    gaps = preprocess.get("reducing_gaps") if isinstance(preprocess, Mapping) else None
    return tuple(gaps) if isinstance(gaps, list | tuple) else None


def size_filter(job: ImageIntake) -> SizeFilter:
    """Which sizes of inputs a job takes."""
    return SizeFilter(job.min_side, job.min_megapixels, job.max_aspect)


def size_filter_fields(job: ImageIntake) -> dict[str, Any]:
    """The filters that a job has, as a store's spec says them."""
    return {name: value for name, value in asdict(size_filter(job)).items() if value is not None}
