"""Counts sizes, failures, shards and channel sums over the rows of a store's units."""

from __future__ import annotations

from array import array
from collections import Counter
from typing import Any

from latentcli.core.reasons import Reasons
from latentcli.core.types import FILTERED, Row
from latentcli.jobs.store.damaged_reader import UnitRead
from latentcli.latents.stats import ChannelSums

SHOWN_REASONS, SHOWN_SIZES, SHOWN_SHARDS = 50, 500, 40


class StoreContents:
    """Running counts; memory does not grow with the number of samples."""

    def __init__(self) -> None:
        self.encoded = 0
        self.failed = 0
        self.sizes: Counter[tuple[int, ...]] = Counter()
        """Of the latents, (C, h, w), and (T, C, h, w) of clips."""
        self.reasons = Reasons()
        """`<stage>: <error>` of the inputs that failed."""
        self.filters: Counter[str] = Counter()
        """Why inputs were left out by the filters of the job."""
        self.shards = array("q")
        """Bytes of each."""
        self.numbers = array("q")
        """Of their units."""
        self.sums = ChannelSums()
        """Of all latents, as the commit records have them; empty where one has none."""
        self._without_sums = False
        self.captions: int | None = 0
        """Samples with a caption; None where that is not known of all units."""

    def add(self, unit: UnitRead) -> None:
        """Takes a unit in."""
        for row in unit.rows:
            self._add(row)
        if self.captions is not None:
            self.captions = None if unit.captions is None else self.captions + unit.captions
        self.shards.append(unit.bytes)
        self.numbers.append(unit.number)
        if any(row.status == "ok" for row in unit.rows) and not self._merged(unit):
            # Sums of some units alone would be taken for those of all.
            self._without_sums, self.sums = True, ChannelSums()

    def _merged(self, unit: UnitRead) -> bool:
        if unit.channels is None or self._without_sums:
            return False
        try:
            self.sums.merge_json(unit.channels)
        except ValueError:
            return False
        return True

    def _add(self, row: Row) -> None:
        if row.status == "ok":
            self.encoded += 1
            if row.latent_shape is not None:
                self.sizes[row.latent_shape] += 1
            return
        if row.status == FILTERED:
            self.filters[row.error or ""] += 1
            return
        self.failed += 1
        self.reasons.add(f"{row.stage}: {row.error}", row.key, row.source)

    def to_json(self, downscale: int) -> dict[str, Any]:
        """Sizes in latent cells and in pixels, failures by reason, and the shards."""
        return {
            "buckets": self._buckets(downscale),
            "failures": [
                {"reason": group.text, "count": group.count, "keys": group.keys}
                for group in self.reasons.most_common()[:SHOWN_REASONS]
            ],
            "failure_reasons": len(self.reasons.groups),
            "shards": self._shards(),
        }

    def _buckets(self, downscale: int) -> dict[str, Any]:
        planes: Counter[tuple[int, int]] = Counter()
        for shape, count in self.sizes.items():
            planes[(shape[-1], shape[-2])] += count
        return {
            "sizes": len(planes),
            "items": [
                {"latent": [w, h], "pixels": [w * downscale, h * downscale], "count": count}
                for (w, h), count in sorted(planes.items(), key=lambda i: (-i[1], i[0]))[
                    :SHOWN_SIZES
                ]
            ],
        }

    def _shards(self) -> dict[str, Any]:
        sizes = sorted(self.shards)
        if not sizes:
            return {"count": 0, "bytes": 0, "min": None, "median": None, "max": None, "items": []}
        return {
            "count": len(sizes),
            "bytes": sum(sizes),
            "min": sizes[0],
            "median": sizes[len(sizes) // 2],
            "max": sizes[-1],
            "items": [
                {"unit": unit, "bytes": size}
                for unit, size in zip(self.numbers, self.shards, strict=True)
            ][:SHOWN_SHARDS],
        }
