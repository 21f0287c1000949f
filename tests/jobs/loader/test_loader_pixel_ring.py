"""Slots of a ring are used by one at a time, none gets lost, and pictures are the same in them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from trapkit import intake, pictures

from latentcli.images.preprocess import PreprocessSpec
from latentcli.jobs.loader.loader import open_chunks
from latentcli.jobs.loader.pixel_ring import RING_BYTES, Ring, RingSize, open_ring, ring_size
from latentcli.jobs.loader.prepare import unit_tasks

SHAPE = (3, 2, 2)


def pins_nothing(memory):
    return lambda: None


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.lists(st.tuples(st.integers(1, 5), st.integers(0, 9))))
def test_a_slot_is_used_by_one_at_a_time(slots, steps):
    ring, taken, unread = Ring(slots, 12, slots), [], []
    try:
        for count, back in steps:
            first = ring.take(count)
            if first is not None:
                new = range(first, first + count)
                assert new.stop <= slots
                assert not {slot for each in [*taken, *unread] for slot in each} & {*new}
                taken.append(new)
            elif taken:
                old = taken.pop(back % len(taken))
                unread.append(old)
                ring.release(
                    [ring.at(slot, SHAPE) for slot in old], lambda old=old: old not in unread
                )
            elif unread:
                unread.pop(0)
        ring.give_back(slot for each in taken for slot in each)
        unread.clear()
        assert ring.free == slots
    finally:
        ring.close()


def test_a_slot_that_is_kept_does_not_stop_the_others():
    """A picture of a rare bucket waits until its unit ends."""
    ring = Ring(8, 12, 8)
    try:
        assert ring.take(1) == 0
        places = [ring.take(3) for _ in range(2)]
        assert places == [1, 4] and ring.take(2) is None
        for _ in range(3):
            ring.give_back(slot for place in places for slot in range(place, place + 3))
            places = [ring.take(3) for _ in range(2)]
            assert places == [1, 4]
    finally:
        ring.close()


def test_pictures_in_a_row_are_a_batch_as_they_lie():
    ring = Ring(4, 12, 4)
    try:
        lying = [ring.at(slot, SHAPE).fill_(slot) for slot in range(4)]
        batch = ring.batch(lying[1:])
        assert batch.shape == (3, *SHAPE) and batch.data_ptr() == lying[1].data_ptr()
        assert batch[:, 0, 0, 0].tolist() == [1, 2, 3]
        for gap in ([lying[0], lying[2]], lying[::-1], [torch.zeros(SHAPE, dtype=torch.uint8)]):
            assert ring.batch(gap) is None
        assert ring.batch([ring.at(slot, (3, 1, 2)) for slot in range(2)]) is None
        assert len(ring.row([0, 1], [SHAPE] * 2)) == 2
        assert ring.row([0, None], [SHAPE] * 2) == ring.row([0, 2], [SHAPE] * 2) == ()
    finally:
        ring.close()


@pytest.mark.parametrize("batch", [4, 6])
def test_a_batch_does_not_go_round_the_end(batch):
    """Units of 14 pictures, in tasks of 2, of which the batch before the last is in use."""
    ring, used, broken = Ring(40, 12, 8, batch), [], 0
    try:
        for _ in range(30):
            lying = []
            for place in range(0, 14, 2):
                first = ring.take(2, place)
                lying += [ring.at(first + i, SHAPE) for i in range(2)]
            for begin in range(0, 14, batch):
                broken += ring.batch(lying[begin : begin + batch]) is None
            ring.release(used, lambda: True)
            used = lying
        assert broken == 0
    finally:
        ring.close()


@pytest.mark.parametrize(("side", "workers", "batch"), [(256, 14, 128), (512, 2, 32), (2048, 2, 2)])
def test_a_ring_stays_within_its_bytes(side, workers, batch):
    size = ring_size(PreprocessSpec((side, side), 16), workers, batch)
    assert size.slots * size.slot_bytes <= RING_BYTES
    assert size.ahead + batch < size.slots
    assert ring_size(PreprocessSpec((side, side), 16), 0, batch) is None
    assert ring_size(PreprocessSpec(None, 16), workers, batch) is None
    assert ring_size(PreprocessSpec((8192, 8192), 16), workers, batch) is None


def test_what_hangs_dies_or_is_no_picture_loses_no_slot(tmp_path):
    """And the pictures are those of a loader without a ring, whatever gets no slot."""
    paths = pictures(tmp_path, 30)
    paths[4].write_bytes(b"no picture")
    traps = {3: "sleep", 12: "crash", 21: "exit"}
    source = intake(tmp_path, paths, size=(16, 16))
    with open_chunks(source, unit_tasks(source, range(3)), 0) as chunks:
        sound = {row.key: (row, pixels) for chunk in chunks for row, pixels in chunk.pictures()}
    source = intake(tmp_path, paths, traps, size=(16, 16))
    with open_ring(RingSize(20, 3 * 16 * 16, 20), pins_nothing) as ring:
        tasks = unit_tasks(source, range(3))
        lying, found = 0, {}
        with open_chunks(source, tasks, 2, time_limit=2.5, ring=ring) as chunks:
            for chunk in chunks:
                good = [pixels for pixels in chunk.pixels if pixels is not None]
                found |= {
                    row.key: (row, None if pixels is None else pixels.clone())
                    for row, pixels in chunk.pictures()
                }
                lying += sum(ring.batch([pixels]) is not None for pixels in good)
                ring.release(good, lambda: True)
        assert ring.free == 20
    assert list(found) == list(sound) and lying > 10
    failed = {key for key, (row, _) in found.items() if row.status == "failed"}
    assert failed == {"003", "004", "012", "021"}
    for key in sound.keys() - failed:
        assert found[key][0] == sound[key][0] and torch.equal(found[key][1], sound[key][1])


def test_pictures_that_are_kept_are_never_written_over(tmp_path):
    """Who releases nothing gets every picture, those for which there is no slot as well."""
    source = intake(tmp_path, pictures(tmp_path, 30), size=(16, 16))
    with open_chunks(source, unit_tasks(source, range(3)), 0) as chunks:
        sound = [pixels for chunk in chunks for pixels in chunk.pixels]
    with open_ring(RingSize(12, 3 * 16 * 16, 30), pins_nothing) as ring:
        with open_chunks(source, unit_tasks(source, range(3)), 1, ring=ring) as chunks:
            kept = [pixels for chunk in chunks for pixels in chunk.pixels]
        assert 0 < sum(ring.batch([pixels]) is not None for pixels in kept) <= 12
        assert all(map(torch.equal, kept, sound))
