"""Tensors that lie in one block with others: the same files, in few pieces."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from latentcli.shards.tensors.packed import COPIED, Block, PackedTensor, Stretch, joined, rows_of
from latentcli.shards.tensors.spool import Spilling
from latentcli.shards.tensors.write import safetensors_parts

BATCHES = st.lists(
    st.tuples(
        st.integers(0, 4),
        st.lists(st.integers(0, 3), max_size=2),
        st.sampled_from([torch.bfloat16, torch.int8, torch.float64]),
    ),
    min_size=1,
    max_size=5,
)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    store = tmp_path_factory.mktemp("store")
    (store / "shards").mkdir()
    return store


def written(tensors) -> tuple[int, bytes]:
    size, chunks = safetensors_parts(tensors, {"a": "b"})
    return size, b"".join(chunks)


@settings(max_examples=60, deadline=None)
@given(batches=BATCHES, limit=st.integers(0, 300), order=st.randoms(use_true_random=False))
def test_a_shard_of_rows_is_the_one_of_their_tensors(store, batches, limit, order):
    """In whatever order of names, in memory or spilled; some are left out."""
    spilling = Spilling(store, "a", limit)
    plain, packed = {}, {}
    for number, (count, shape, dtype) in enumerate(batches):
        batch = torch.randn(count, *shape).mul(50).to(dtype)
        for i, row in enumerate(spilling.rows(batch)):
            assert (row.dtype, row.shape) == (dtype, tuple(shape))
            name = f"{order.random()}/{number}-{i}"
            if order.random() < 0.9:
                plain[name], packed[name] = batch[i], row
    size, data = written(packed)
    assert (size, data) == written(plain) and size == len(data)
    spilling.drop()


def test_neighbours_are_read_together(store):
    batch = torch.arange(60.0).view(5, 3, 4)
    for limit in (0, 1000):
        rows = Spilling(store, "a", limit).rows(batch)
        _, chunks = safetensors_parts({f"k{i}/latent": row for i, row in enumerate(rows)}, {})
        *_, data = chunks
        assert len(data) == 240
    block = Block(memoryview(bytes(100)))
    places = [Stretch(block, 0, 4), Stretch(block, 4, 0), Stretch(block, 4, 8), "x"]
    places += [Stretch(block, 12, 4), Stretch(block, 20, 4), Stretch(Block(block.data), 24, 4)]
    found = [place if place == "x" else (place.offset, place.size) for place in joined(places)]
    assert found == [(0, 12), "x", (12, 4), (20, 4), (24, 4)]


def test_a_block_is_not_copied():
    data = bytearray(2 * (COPIED + 8))
    _, last = rows_of(torch.int8, (2, COPIED + 8), Stretch(Block(memoryview(data)), 0, len(data)))
    assert isinstance(last, PackedTensor)
    data[-1] = 7
    assert [len(piece) for piece in last.pieces()] == [COPIED, 8]
    assert [piece[-1] for piece in last.pieces()] == [0, 7]
