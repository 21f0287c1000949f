"""Reads several ranges of a file, those that lie near each other with one request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from latentcli.shards.storage.paths import AnyPath, read_part

GAP = 2**18
"""Bytes between two ranges that are read for nothing rather than asked for apart: a request takes
as long as some hundred KiB do."""
MOST = 2**23
"""Bytes that ranges are joined up to, which are in memory at once."""

Span = tuple[int, int]
"""First byte, and the one behind the last."""


def read_ranges(path: AnyPath, spans: Sequence[Span]) -> list[memoryview]:
    """The bytes of each range, fewer where a local file ends before; StoreError as `read_part`."""
    found = [memoryview(b"")] * len(spans)
    for (begin, end), places in joined(spans):
        data = memoryview(read_part(path, begin, end))
        for place in places:
            first, last = spans[place]
            found[place] = data[first - begin : last - begin]
    return found


def joined(spans: Sequence[Span]) -> Iterator[tuple[Span, list[int]]]:
    """Ranges that hold all others, each with the places of those in it."""
    begin = end = 0
    places: list[int] = []
    for place in sorted(range(len(spans)), key=lambda place: spans[place]):
        first, last = spans[place]
        if places and (first > end + GAP or max(end, last) - begin > MOST):
            yield (begin, end), places
            places = []
        begin, end = (begin, max(end, last)) if places else (first, last)
        places.append(place)
    if places:
        yield (begin, end), places
