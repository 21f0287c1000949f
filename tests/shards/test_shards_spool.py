"""Spooled tensors: what comes back out of a shard, what is left of them, what goes wrong."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from latentcli.core.errors import StoreError
from latentcli.shards.safetensors_file import SafetensorsFile
from latentcli.shards.spool import COPIED, Spool
from latentcli.shards.write import remove_temporary, write_safetensors

LONG = st.lists(st.integers(1, 5), min_size=1, max_size=6)


@pytest.fixture
def store(tmp_path):
    (tmp_path / "shards").mkdir()
    return tmp_path


def spooled(store, pieces, name="a"):
    spool = Spool(store, name)
    for piece in pieces:
        spool.add(piece)
    return spool.close()


@settings(max_examples=25, deadline=None)
@given(counts=LONG, width=st.integers(1, 7), code=st.sampled_from(["bfloat16", "float32", "int64"]))
def test_a_shard_with_spooled_tensors_equals_one_with_whole_ones(
    tmp_path_factory, counts, width, code
):
    store = tmp_path_factory.mktemp("spool")
    (store / "shards").mkdir()
    dtype = getattr(torch, code)
    pieces = [torch.randn(n, width, 2).mul(100).to(dtype) for n in counts]
    other = torch.arange(5, dtype=torch.int64)
    whole = {"clip/latent": torch.cat(pieces), "clip/times": other}
    tensor = spooled(store, pieces)
    digest = write_safetensors(store / "a", {"clip/latent": tensor, "clip/times": other}, {})
    assert digest == write_safetensors(store / "b", whole, {})
    assert (store / "a").read_bytes() == (store / "b").read_bytes()
    assert torch.equal(load_file(store / "a")["clip/latent"], whole["clip/latent"])


def test_rows_are_the_tensors_own(store):
    whole = torch.randn(11, 3, 2).bfloat16()
    write_safetensors(store / "x", {"k/latent": whole, "k/clock": torch.tensor([1, 2])}, {})
    with SafetensorsFile(store / "x") as file:
        for start, stop in ((0, 11), (3, 4), (10, 99), (11, 12), (0, 0)):
            assert torch.equal(file.rows("k/latent", start, stop), whole[start:stop])
        with pytest.raises(StoreError, match="no tensor 'k/mean'"):
            file.rows("k/mean", 0, 1)


def test_pieces_are_small(store):
    tensor = spooled(store, [torch.zeros(COPIED // 4 + 10, 1), torch.ones(3, 1)])
    sizes = [len(piece) for piece in tensor.pieces()]
    assert max(sizes) == COPIED and sum(sizes) == 4 * (COPIED // 4 + 13)


def test_a_spool_takes_one_shape_and_one_dtype(store):
    spool = Spool(store, "a")
    spool.add(torch.zeros(2, 3))
    for wrong in (torch.zeros(1, 4), torch.zeros(2, 3).bfloat16()):
        with pytest.raises(ValueError, match="those before were"):
            spool.add(wrong)
    assert spool.close().shape == (2, 3)


def test_an_empty_spool_is_none(store):
    with pytest.raises(ValueError, match="holds nothing"):
        Spool(store, "a").close()


def test_what_a_killed_job_leaves_is_cleared_away(store):
    spooled(store, [torch.zeros(2, 3)])
    Spool(store, "b").add(torch.zeros(1))
    assert len(remove_temporary(store)) == 2
    assert not list((store / "shards").iterdir())


def test_dropping_deletes_the_file(store):
    spool = Spool(store, "a")
    spool.add(torch.zeros(2))
    tensor = spool.close()
    tensor.drop()
    tensor.drop()
    assert not list((store / "shards").iterdir())
    with pytest.raises(StoreError, match="cannot be read"):
        list(tensor.pieces())


def test_a_refused_write_is_a_store_error(tmp_path):
    with pytest.raises(StoreError, match="cannot be written"):
        Spool(tmp_path / "nowhere", "a").add(torch.zeros(1))
