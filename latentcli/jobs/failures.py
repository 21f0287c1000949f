"""Says how many inputs of a job may fail."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

from latentcli.core.errors import UsageError


def allowed_failures(max_bad: str | None, inputs: int) -> int:
    """How many of `inputs` may fail: `max_bad` is a number or a percentage, None is 0."""
    text = "0" if max_bad is None else max_bad.strip()
    try:
        # Decimal: in floats, 0.57% of 10,000 is less than 57.
        number = Decimal(text.removesuffix("%"))
    except InvalidOperation:
        number = Decimal(-1)
    if not number.is_finite() or number < 0 or (text.endswith("%") and number > 100):
        raise UsageError(f"--max-bad is {max_bad!r}; give a number such as 10, or 0.5%.")
    return int(inputs * number / 100) if text.endswith("%") else int(number)
