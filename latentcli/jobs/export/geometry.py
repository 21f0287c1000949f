"""Compares the sizes of latents with those that a trainer will compute for the same pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from latentcli.core.errors import SampleError
from latentcli.core.types import Row
from latentcli.exports.format import ExportFormat, Sizing, Variant
from latentcli.images.buckets import Buckets, described_buckets


@dataclass(frozen=True, slots=True)
class Geometry:
    """How the store's pictures were brought to size, as far as a trainer has to do the same."""

    buckets: Buckets | None
    size: tuple[int, int] | None
    """(W, H) of all pictures, where they were cropped to one size."""
    downscale: int

    def problem(self, format: ExportFormat, variant: Variant, row: Row) -> str | None:
        """Why the trainer would not take the latent of a row; None where it would."""
        if not format.rule:
            return None
        if self.buckets is None:
            return self._not_one_size(format, variant)
        if self.buckets.rule != format.rule and not self.buckets.rule.startswith(f"{format.rule}-"):
            return (
                f"the store was made with the bucket rule {self.buckets.rule}, and {format.name}"
                f" computes sizes again by its own, --bucket-rule {format.rule}"
            )
        step = self.buckets.step
        if variant.step not in (None, step):
            return (
                f"the store's buckets have steps of {step} pixels, and those of {variant.suits} are"
                f" {variant.step} there: --bucket-step {variant.step}"
            )
        if step % variant.whole:
            return (
                f"the store's buckets have steps of {step} pixels, and the trainer of"
                f" {variant.suits} takes multiples of {variant.whole}"
            )
        return self._differs(row)

    def _not_one_size(self, format: ExportFormat, variant: Variant) -> str | None:
        if not format.unbucketed or self.size is None:
            how = "with one --size or " if format.unbucketed else ""
            return f"the store was not made {how}with --bucket-rule {format.rule}"
        width, height = self.size
        if format.square and width != height:
            return f"{format.name} crops all pictures to a square, and these are {width}x{height}"
        if variant.step is not None and (width % variant.step or height % variant.step):
            return (
                f"the pictures are {width}x{height}, and sides of {variant.suits} are multiples of"
                f" {variant.step} there"
            )
        return None

    def _differs(self, row: Row) -> str | None:
        assert self.buckets is not None
        if row.original_size is None or row.latent_shape is None:
            return f"the store does not say how large {row.key!r} was"
        try:
            width, height = self.buckets.pick(row.original_size)
        except SampleError as error:
            return f"{row.key!r}: {error.reason}"
        h, w = row.latent_shape[-2:]
        if (w * self.downscale, h * self.downscale) == (width, height):
            return None
        return (
            f"{row.key!r} is {w * self.downscale}x{h * self.downscale} in the store, and its bucket"
            f" is {width}x{height}"
        )

    def sizing(self) -> Sizing | None:
        """The same as settings of a trainer; None where each picture has a size of its own."""
        if self.buckets is None:
            return Sizing(size=self.size) if self.size else None
        return Sizing(
            rule=self.buckets.rule,
            size=sides_of(self.buckets.area),
            step=self.buckets.step,
            min_side=self.buckets.min_side,
            max_side=self.buckets.max_side,
            no_upscale=self.buckets.no_upscale,
        )


def sides_of(area: int) -> tuple[int, int]:
    """(W, H) of so many pixels, as near to a square as whole numbers allow.

    Trainers compute buckets from the product alone, so it need not be the pair that was asked for.
    """
    height = next(side for side in range(math.isqrt(area), 0, -1) if area % side == 0)
    return area // height, height


def geometry_of(preprocessing: Mapping[str, Any], downscale: int) -> Geometry:
    """What a manifest's preprocessing says."""
    described = preprocessing.get("buckets")
    size = preprocessing.get("size") if preprocessing.get("resize") == "crop" else None
    return Geometry(
        described_buckets(described) if described else None,
        (size[0], size[1]) if size else None,
        downscale,
    )
