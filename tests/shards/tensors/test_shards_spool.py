"""Spooled tensors: what comes back out of a shard, what is left of them, what goes wrong."""

from __future__ import annotations

import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from latentcli.core.errors import StoreError
from latentcli.core.types import Member
from latentcli.shards.storage.atomic_write import remove_temporary
from latentcli.shards.tar.write import TarSample, tar_chunks
from latentcli.shards.tensors.file import SafetensorsFile
from latentcli.shards.tensors.packed import COPIED, PackedMember, PackedTensor
from latentcli.shards.tensors.spool import Spilling, Spool
from latentcli.shards.tensors.write import write_safetensors

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
    spool.drop()
    spool.drop()
    assert not list((store / "shards").iterdir())
    with pytest.raises(StoreError, match="cannot be read"):
        list(tensor.pieces())


def test_a_refused_write_is_a_store_error(tmp_path):
    with pytest.raises(StoreError, match="cannot be written"):
        Spool(tmp_path / "nowhere", "a").add(torch.zeros(1))


CODES = ("bfloat16", "float32", "int64", "uint8", "bool")
THINGS = st.lists(
    st.tuples(
        st.sampled_from(CODES), st.lists(st.integers(0, 4), max_size=3), st.binary(max_size=40)
    ),
    min_size=1,
    max_size=8,
)


def tar_with(spilling, things) -> bytes:
    samples = []
    for i, (code, shape, data) in enumerate(things):
        # Every other element: what is not contiguous has to come out right too.
        tensor = torch.arange(2 * torch.Size(shape).numel())[::2].reshape(shape)
        (latent,) = spilling.rows(tensor.to(getattr(torch, code))[None])
        other = spilling.member(Member("txt", data))
        samples.append(TarSample(f"k{i}", {"latent": latent}, {"key": f"k{i}"}, {}, (other,)))
    return b"".join(tar_chunks(samples))


@settings(max_examples=40, deadline=None)
@given(things=THINGS, limit=st.integers(0, 200))
def test_a_shard_is_the_same_whatever_was_spilled(tmp_path_factory, things, limit):
    store = tmp_path_factory.mktemp("spill")
    (store / "shards").mkdir()
    spilling = Spilling(store, "a", limit)
    whole = Spilling(store, "b")
    assert tar_with(spilling, things) == tar_with(whole, things)
    assert not list((store / "shards").iterdir())
    spilling.drop()


def test_what_fits_is_given_back_and_the_rest_is_not(store):
    spilling = Spilling(store, "a", limit=100)
    small, large = torch.ones(2, 10), torch.ones(3, 10)
    (kept, _), (packed, *_) = spilling.rows(small), spilling.rows(large)
    small[0] = 2
    assert torch.frombuffer(next(kept.pieces()), dtype=torch.float32).tolist() == [2] * 10
    assert isinstance(packed, PackedTensor)
    assert (packed.dtype, packed.shape, packed.element_size()) == (torch.float32, (10,), 4)
    member = Member("txt", b"hello")
    assert spilling.member(member) is member
    other = spilling.member(Member("bin", bytes(16)))
    assert isinstance(other, PackedMember) and (other.field, other.size) == ("bin", 16)
    assert b"".join(other.pieces()) == bytes(16)
    spilling.drop()
    spilling.drop()
    for late in (packed, other):
        with pytest.raises(StoreError, match="was dropped"):
            list(late.pieces())


def test_long_things_come_in_small_pieces(store):
    spilling = Spilling(store, "a", limit=0)
    spilling.member(Member("x", b"12345"))
    tensor = torch.arange(COPIED // 4 + 100, dtype=torch.int32)
    pieces = list(spilling.rows(tensor[None])[0].pieces())
    assert [len(piece) for piece in pieces] == [COPIED, 400]
    assert b"".join(pieces) == tensor.numpy().tobytes()


def test_threads_share_a_spilling(store):
    spilling, out = Spilling(store, "a", limit=0), {}

    def put(number: int) -> None:
        out[number] = [spilling.member(Member("x", bytes([number]) * 999)) for _ in range(50)]

    threads = [threading.Thread(target=put, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, members in out.items():
        assert all(b"".join(m.pieces()) == bytes([number]) * 999 for m in members)


def test_spilling_takes_up_the_disk_only_until_it_is_dropped(store):
    spilling = Spilling(store, "a", limit=0)
    spilling.member(Member("x", b"1"))
    assert spilling.path.parent == store / "shards" and not spilling.path.exists()
    spilling.drop()
    with pytest.raises(StoreError, match="cannot be written"):
        Spilling(store / "nowhere", "a", limit=0).member(Member("x", b"1"))


def test_without_a_local_store_it_is_in_the_systems_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    spool = Spool(None, "a")
    spool.add(torch.zeros(2))
    assert isinstance(spool.close(), PackedTensor) and spool.path.parent == tmp_path
    spool.drop()
    assert Spilling(None, "a").path.parent == tmp_path
