"""Replaces the numbers that JSON cannot say, NaN and the infinities, by None."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def finite(value: Any) -> Any:
    """The value with every NaN and infinity in it as None; tuples become lists."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def rounded_value(value: float | None, digits: int) -> float | None:
    """The value to so many decimals; None where there is none, or it is not finite."""
    return round(value, digits) if value is not None and math.isfinite(value) else None
