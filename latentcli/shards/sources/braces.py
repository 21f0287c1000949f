"""Expands braces: shards-{000..099}.tar is a hundred names."""

from __future__ import annotations

import re
from itertools import islice

from latentcli.core.errors import UsageError

MOST_NAMES = 1_000_000
"""Names that the braces of one source may stand for."""

_RANGE = re.compile(r"\{(-?\d+)\.\.(-?\d+)[}.]")


def brace_names(source: str) -> list[str] | None:
    """What shards-{000..099}.tar stands for, in order; None where a text has no such braces.

    UsageError where these are more than MOST_NAMES.
    """
    if "{" not in source:
        return None
    import braceexpand

    names = list[str]()
    # A range is made as a whole before its first name comes out, so it is measured before.
    endless = any(abs(int(b) - int(a)) > MOST_NAMES for a, b in _RANGE.findall(source))
    try:
        if not endless:
            names = list(islice(braceexpand.braceexpand(source), MOST_NAMES + 1))
    except ValueError:
        return None
    if endless or len(names) > MOST_NAMES:
        raise UsageError(f"the braces of {source} stand for more than {MOST_NAMES:,} names.")
    return None if names == [source] else names
