"""Which pictures share a batch: order and shapes decide, and nothing else."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from latentcli.jobs.loader.batches import batches

SHAPES = ((1, 2), (2, 1), (3, 3), (4, 1))
Item = tuple[int, torch.Tensor]


def items(shapes: list[int]) -> list[Item]:
    return [(i, torch.zeros(SHAPES[s], dtype=torch.uint8)) for i, s in enumerate(shapes)]


def numbers(
    shapes: list[int], size: int, limit: int = 2**30, most: int | None = None
) -> list[list[int]]:
    stream = batches(items(shapes), lambda item: item[1], size, most, limit)
    return [[number for number, _ in batch] for batch in stream]


streams = st.lists(st.integers(0, len(SHAPES) - 1), max_size=40)
sizes = st.integers(1, 6)
limits = st.integers(0, 60)


@settings(max_examples=150, deadline=None)
@given(streams, sizes, limits)
def test_nothing_is_lost_and_no_batch_is_mixed_or_too_large(shapes, size, limit):
    found = numbers(shapes, size, limit)
    assert sorted(n for batch in found for n in batch) == list(range(len(shapes)))
    for batch in found:
        assert 1 <= len(batch) <= size
        assert len({shapes[n] for n in batch}) == 1
        assert batch == sorted(batch)


@settings(max_examples=100, deadline=None)
@given(streams, sizes)
def test_only_the_last_batch_of_a_shape_is_short(shapes, size):
    found = numbers(shapes, size)
    for shape in set(shapes):
        lengths = [len(batch) for batch in found if shapes[batch[0]] == shape]
        assert all(length == size for length in lengths[:-1])
    short = [batch[0] for batch in found if len(batch) < size]
    assert short == sorted(short)


@settings(max_examples=100, deadline=None)
@given(streams, sizes, limits)
def test_what_waits_is_bounded(shapes, size, limit):
    """Never more than the limit and the picture that has just come."""
    pictures = items(shapes)
    taken, given_out = 0, 0

    def feed():
        nonlocal taken
        for item in pictures:
            assert taken - given_out <= limit
            taken += item[1].nbytes
            yield item

    for batch in batches(feed(), lambda item: item[1], size, None, limit):
        given_out += sum(tensor.nbytes for _, tensor in batch)
    assert taken == given_out


@settings(max_examples=100, deadline=None)
@given(streams, sizes, limits)
def test_a_stream_that_pauses_gives_the_same_batches(shapes, size, limit):
    """A batch is given out before the next picture is asked for, so timing cannot matter."""
    whole = numbers(shapes, size, limit)
    stream = batches(iter(items(shapes)), lambda item: item[1], size, None, limit)
    assert [[number for number, _ in batch] for batch in stream] == whole
    for cut in range(len(shapes)):
        begun = numbers(shapes[:cut], size, limit)
        sure = [batch for batch in begun if len(batch) == size]
        assert [batch for batch in whole if max(batch) < cut and len(batch) == size] == sure


@settings(max_examples=100, deadline=None)
@given(streams, sizes, st.integers(1, 12))
def test_large_pictures_go_in_smaller_batches(shapes, size, most):
    """A shape's batches are all as full as its size and the most elements allow, but the last."""
    found = numbers(shapes, size, most=most)
    assert sorted(n for batch in found for n in batch) == list(range(len(shapes)))
    for shape in set(shapes):
        elements = SHAPES[shape][0] * SHAPES[shape][1]
        full = max(1, min(size, most // elements))
        lengths = [len(batch) for batch in found if shapes[batch[0]] == shape]
        assert all(length == full for length in lengths[:-1]) and 1 <= lengths[-1] <= full


def test_a_full_batch_goes_at_once():
    def feed():
        yield from items([0, 0])
        raise AssertionError("a picture too many was asked for")

    assert len(next(batches(feed(), lambda item: item[1], 2))) == 2


def test_the_oldest_group_goes_first():
    assert numbers([2, 0, 1, 0], 3) == [[0], [1, 3], [2]]
    assert numbers([2, 0, 1, 0], 3, limit=11) == [[0], [1, 3], [2]]
    assert numbers([0, 2, 0, 0], 3, limit=10) == [[0], [1], [2, 3]]
