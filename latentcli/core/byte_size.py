"""Reads and writes sizes of memory as people do: 4GiB, 500 MB, 1.5g, or a number of bytes."""

from __future__ import annotations

import re
from decimal import Decimal

from latentcli.core.errors import UsageError

SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([kmgt])(i?)b?|b?)", re.IGNORECASE | re.ASCII)
POWERS = "kmgt"


def byte_size(text: str, option: str) -> int:
    """Bytes; units are powers of 1000, with an i of 1024. UsageError names the option."""
    match = SIZE.fullmatch(text.strip())
    size = 0
    if match is not None:
        base = 1024 if match[3] else 1000
        power = POWERS.index(match[2].lower()) + 1 if match[2] else 0
        size = int(Decimal(match[1]) * base**power)
    if size < 1:
        raise UsageError(f"{option} is {text!r}; give a size such as 4GiB, 500MB or 1000000000.")
    return size


def byte_words(size: float) -> str:
    """A size as a person reads it: 900 B, 1.5 MiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
