"""Ranges of a file that lie near each other are read together, and each gets its own bytes."""

from __future__ import annotations

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentcli.core.errors import StoreError
from latentcli.shards.storage import ranges
from latentcli.shards.storage.paths import RemotePath
from latentcli.shards.storage.ranges import GAP, MOST, joined, read_ranges

DATA = bytes(range(256)) * 8
SPANS = st.lists(
    st.tuples(st.integers(0, 1900), st.integers(0, 140)).map(lambda s: (s[0], s[0] + s[1])),
    max_size=12,
)


@given(SPANS)
def test_each_range_has_its_bytes(spans):
    fsspec.filesystem("memory").pipe_file("/ranges/file", DATA)
    found = read_ranges(RemotePath("memory://ranges/file"), spans)
    assert [bytes(part) for part in found] == [DATA[begin:end] for begin, end in spans]


@given(SPANS, st.integers(0, 300), st.integers(1, 500))
def test_ranges_are_joined_within_limits(spans, gap, most):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranges, "GAP", gap)
        patch.setattr(ranges, "MOST", most)
        found = list(joined(spans))
    assert sorted(place for _, places in found for place in places) == list(range(len(spans)))
    for (begin, end), places in found:
        own = sorted(spans[place] for place in places)
        assert begin == own[0][0] and end == max(last for _, last in own)
        assert len(own) == 1 or end - begin <= most
        # Nothing longer than a gap is read for nothing.
        reached = begin
        for first, last in own:
            assert first - reached <= gap
            reached = max(reached, last)


def test_how_far_apart():
    near, far = [(0, 10), (10 + GAP, 20 + GAP)], [(0, 10), (11 + GAP, 20 + GAP)]
    assert len(list(joined(near))) == 1 and len(list(joined(far))) == 2
    large = [(0, MOST // 2), (MOST // 2, MOST), (MOST, MOST + 1)]
    assert [places for _, places in joined(large)] == [[0, 1], [2]]
    assert list(joined([])) == []


def test_a_file_that_ends_before_is_an_error():
    fsspec.filesystem("memory").pipe_file("/ranges/short", DATA[:100])
    with pytest.raises(StoreError, match="cannot be read"):
        read_ranges(RemotePath("memory://ranges/short"), [(0, 10), (90, 101)])
