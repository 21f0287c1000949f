"""Puts words into sentences."""

from __future__ import annotations

from collections.abc import Sequence


def listed(words: Sequence[str], last: str) -> str:
    """a, b and c, of two words at least; `last` is what stands before the last one."""
    return f"{', '.join(words[:-1])} {last} {words[-1]}"
