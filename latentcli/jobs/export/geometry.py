"""Compares the sizes of latents with those that a trainer will compute for the same pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from latentcli.core.errors import SampleError
from latentcli.core.types import Row
from latentcli.exports.format import ExportFormat
from latentcli.images.buckets import Buckets, described_buckets


@dataclass(frozen=True, slots=True)
class Geometry:
    """How the store's pictures were brought to size, as far as a trainer has to do the same."""

    buckets: Buckets | None
    size: tuple[int, int] | None
    """(W, H) of all pictures, where they were cropped to one size."""
    downscale: int

    def problem(self, format: ExportFormat, row: Row) -> str | None:
        """Why the trainer would not take the latent of a row; None where it would."""
        if not format.rule:
            return None
        if self.buckets is None:
            if format.unbucketed and self.size is not None:
                return None
            how = "with one --size or " if format.unbucketed else ""
            return f"the store was not made {how}with --bucket-rule {format.rule}"
        if self.buckets.rule != format.rule:
            return (
                f"the store was made with the bucket rule {self.buckets.rule}, and {format.name}"
                f" computes sizes again by its own, --bucket-rule {format.rule}"
            )
        return self._differs(row)

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

    def settings(self) -> str:
        """What to set in a trainer for these sizes; "" where there is nothing to say."""
        if self.buckets is None:
            if self.size is None:
                return ""
            return f"resolution {self.size[0]}x{self.size[1]}, without buckets"
        parts = [f"area {self.buckets.area} pixels", f"steps of {self.buckets.step}"]
        if self.buckets.min_side is not None:
            parts.append(f"sides from {self.buckets.min_side} to {self.buckets.max_side}")
        if self.buckets.no_upscale:
            parts.append("no upscaling")
        return f"buckets of the rule {self.buckets.rule}: {', '.join(parts)}"


def geometry_of(preprocessing: Mapping[str, Any], downscale: int) -> Geometry:
    """What a manifest's preprocessing says."""
    described = preprocessing.get("buckets")
    size = preprocessing.get("size") if preprocessing.get("resize") == "crop" else None
    return Geometry(
        described_buckets(described) if described else None,
        (size[0], size[1]) if size else None,
        downscale,
    )
