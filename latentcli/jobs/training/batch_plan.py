"""Cuts samples into batches of one size each, as many of them as all ranks can share equally."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


class Batches:
    """Batches of places, in two arrays: all places in a row, and where each batch lies in it."""

    def __init__(self, places: Ints, spans: Ints) -> None:
        """`spans` is [number of batches, 2]: first place, and the one behind the last."""
        self.places = places
        self.spans = spans

    def __len__(self) -> int:
        return len(self.spans)

    def __getitem__(self, number: int) -> list[int]:
        start, stop = self.spans[number]
        found: list[int] = self.places[start:stop].tolist()
        return found

    def __iter__(self) -> Iterator[list[int]]:
        return (self[number] for number in range(len(self)))

    def members(self) -> Ints:
        """The places in all batches, in their order."""
        lengths = self.spans[:, 1] - self.spans[:, 0]
        inside = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        found: Ints = self.places[np.repeat(self.spans[:, 0], lengths) + inside]
        return found

    def part(self, chosen: slice | Ints) -> Batches:
        """Some of the batches."""
        return Batches(self.places, self.spans[chosen])


def by_size(places: Ints, sizes: npt.NDArray[np.int32], batch_size: int) -> Batches:
    """Batches of places in their order, each of one size; `sizes` is that of each place.

    A batch stands where its last sample stood; what is left of a size comes at the end.
    """
    order = np.argsort(sizes, kind="stable")
    ends = np.flatnonzero(np.diff(sizes[order])) + 1
    starts = np.array([0, *ends], np.int64) if len(order) else np.zeros(0, np.int64)
    stops = np.array([*ends, len(order)], np.int64)[: len(starts)]
    spans = [
        np.stack([begins, np.minimum(begins + batch_size, stop)], axis=1)
        for start, stop in zip(starts, stops, strict=True)
        for begins in [np.arange(start, stop, batch_size, dtype=np.int64)]
    ]
    found = np.concatenate([np.zeros((0, 2), np.int64), *spans])
    full = found[:, 1] - found[:, 0] == batch_size
    moments = np.where(full, order[found[:, 1] - 1], len(order) + np.arange(len(found)))
    return Batches(places[order], found[np.argsort(moments, kind="stable")])


def full_ones(batches: Batches, batch_size: int) -> Batches:
    """The batches that are full."""
    lengths = batches.spans[:, 1] - batches.spans[:, 0]
    return batches.part(np.flatnonzero(lengths == batch_size))


def divided(batches: Batches, more: int) -> Batches:
    """The same samples in so many `more` batches, for which the largest ones are halved.

    No more than there is `room` for.
    """
    pieces: dict[int, list[tuple[int, int]]] = {}
    heap = [(start - stop, number, start, stop) for number, (start, stop) in _numbered(batches)]
    heapq.heapify(heap)
    for _ in range(more):
        _, number, start, stop = heapq.heappop(heap)
        middle = (start + stop + 1) // 2
        spans = pieces.setdefault(number, [(start, stop)])
        at = spans.index((start, stop))
        spans[at : at + 1] = [(start, middle), (middle, stop)]
        for begin, end in ((start, middle), (middle, stop)):
            heapq.heappush(heap, (begin - end, number, begin, end))
    if not more:
        return batches
    spans = [span for number, own in _numbered(batches) for span in pieces.get(number, [own])]
    return Batches(batches.places, np.array(spans, np.int64).reshape(-1, 2))


def room(batches: Batches) -> int:
    """How many more batches `divided` can make of the same samples."""
    return int((batches.spans[:, 1] - batches.spans[:, 0]).sum()) - len(batches)


def _numbered(batches: Batches) -> Iterator[tuple[int, tuple[int, int]]]:
    return ((number, (start, stop)) for number, (start, stop) in enumerate(batches.spans.tolist()))


def count_of(sizes: npt.NDArray[np.int32], batch_size: int, *, full: bool) -> int:
    """How many batches `by_size` makes, or how many full ones."""
    counts = np.bincount(sizes) if len(sizes) else np.zeros(0, np.int64)
    return int((counts // batch_size if full else -(-counts // batch_size)).sum())


def shares(total: int, rooms: Sequence[int]) -> list[int]:
    """`total` in parts, none larger than its room, as equal as they can be.

    Less than `total` where the rooms do not hold it.
    """
    found = [0] * len(rooms)
    left = min(total, sum(rooms))
    while left:
        open_ones = [place for place, room in enumerate(rooms) if found[place] < room]
        each = max(left // len(open_ones), 1)
        for place in open_ones:
            given = min(each, rooms[place] - found[place], left)
            found[place] += given
            left -= given
    return found
