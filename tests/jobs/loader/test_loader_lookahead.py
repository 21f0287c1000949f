"""Items that are taken before they are asked for: all of them, in order, and not too many."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from latentcli.jobs.loader.lookahead import lookahead


@given(st.lists(st.integers(), max_size=9), st.integers(0, 12))
def test_how_far_ahead_items_are_taken(items, count):
    taken: list[int] = []

    def each():
        for item in items:
            taken.append(item)
            yield item

    given = []
    for item in lookahead(each(), count):
        given.append(item)
        assert len(taken) == min(len(given) + count, len(items))
    assert given == items
