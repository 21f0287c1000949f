"""Refuses pictures and clips by their size, before any pixel is decoded."""

from __future__ import annotations

import math
from dataclasses import dataclass

from latentcli.core.errors import Filtered

_MEGA = 1_000_000


@dataclass(frozen=True, slots=True)
class SizeFilter:
    """What the size of an input must be; a turn by 90 degrees changes nothing of it."""

    min_side: int | None = None
    """Pixels that the shorter side has at least."""
    min_megapixels: float | None = None
    max_aspect: float | None = None
    """The longer side over the shorter one, at most."""

    def check(self, size: tuple[int, int]) -> None:
        """Filtered where a size (W, H) is refused; of several reasons, the first is told.

        A reason holds no figure of the input, so that equal ones are counted together.
        """
        short, long = sorted(size)
        if self.min_side is not None and short < self.min_side:
            raise Filtered(f"its short side is below {self.min_side} pixels (--min-side)")
        if self.min_megapixels is not None and short * long < self.min_megapixels * _MEGA:
            least = math.ceil(self.min_megapixels * _MEGA)
            raise Filtered(f"it has fewer than {least:,} pixels (--min-megapixels)")
        if self.max_aspect is not None and long > self.max_aspect * short:
            raise Filtered(
                f"its long side is more than {self.max_aspect:g} times the short one (--max-aspect)"
            )


NO_FILTER = SizeFilter()
"""Takes every size."""
