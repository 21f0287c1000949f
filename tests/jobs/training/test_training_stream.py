"""Streams: each shard once, each sample once, over ranks and workers, and on from any stop."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
from harness.made_up_stores import Kind, key_of, make_store, value
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from latentcli import LatentDataset, LatentStream
from latentcli.core.errors import StoreError, UsageError
from latentcli.jobs.training.damage import DamagedShard
from latentcli.jobs.training.stream_plan import EpochPlan, Order, Worker
from latentcli.shards.store.commit import read_record

UNITS = [
    [(2, 3), (3, 2), None, (2, 3), (2, 3)],
    [(2, 2)],
    [None],
    [(3, 2), (3, 2), (2, 3), (2, 3), (2, 3), (2, 2), (2, 3)],
    [(2, 3)] * 6,
    [(3, 2)] * 3,
]
KEYS = [key_of(u, i) for u, unit in enumerate(UNITS) for i, size in enumerate(unit) if size]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("store") / "store", UNITS)


@pytest.fixture(scope="module")
def tars(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("tars") / "store", UNITS, Kind(tars=True))


def remote(store: Path, name: str) -> str:
    """A copy in a storage that is no file system."""
    url = f"memory://{name}"
    files = fsspec.filesystem("memory")
    for path in store.rglob("*"):
        if path.is_file():
            files.pipe_file(f"/{name}/{path.relative_to(store)}", path.read_bytes())
    return url


def keys_of(items: Any) -> list[str]:
    """Keys of items or batches."""
    found: list[str] = []
    for item in items:
        found += [item["key"]] if isinstance(item["key"], str) else item["key"]
    return found


@settings(deadline=None, max_examples=150)
@given(
    units=st.lists(st.lists(st.integers(0, 3), max_size=9), max_size=9),
    buffer=st.integers(0, 30),
    size=st.none() | st.integers(1, 6),
    ranks=st.sampled_from([1, 2, 4]),
    workers=st.sampled_from([1, 2, 4]),
    drop_last=st.booleans(),
    shuffle=st.booleans(),
    epoch=st.integers(0, 2),
)
def test_plans_share_everything_out_once(
    units, buffer, size, ranks, workers, drop_last, shuffle, epoch
):
    numbers = np.array([n for n, unit in enumerate(units) for _ in unit], np.int32)
    sizes = np.array([size for unit in units for size in unit], np.int32)
    drop_last = drop_last and size is not None
    plan = EpochPlan(Order(numbers, sizes, shuffle, buffer, 0, size, drop_last), epoch)
    of_rank: list[int] = []
    samples: list[int] = []
    seen: list[int] = []
    for rank in range(ranks):
        team = Worker(ranks, rank, workers, 0).team(rank)
        found = [plan.batches(worker) for worker in team]
        of_rank.append(sum(map(len, found)))
        samples.append(sum(len(batch) for batches in found for batch in batches))
        assert of_rank[-1] == plan.total(team[0])
        for worker, batches in zip(team, found, strict=True):
            part = plan.part(worker).tolist()
            assert {i for batch in batches for i in batch} <= set(part)
            if size is None and shuffle:
                moved = [part.index(batch[0]) - n for n, batch in enumerate(batches)]
                assert all(-max(buffer, 1) < m < max(buffer, 1) for m in moved)
            for batch in batches:
                assert 0 < len(batch) <= (size or 1) and len(set(sizes[batch])) == 1
                assert not drop_last or len(batch) == size
            seen += [i for batch in batches for i in batch]
    assert len(seen) == len(set(seen)) and (drop_last or len(seen) == len(numbers))
    if size is None:
        assert max(samples) - min(samples) <= 1
    else:
        assert plan.is_even(Worker(ranks, 0, workers, 0)) == (len(set(of_rank)) == 1)
        # A rank that has fewer than others has one batch for each of its samples.
        short = [n for n, count in enumerate(of_rank) if count < max(of_rank)]
        assert all(of_rank[n] == samples[n] for n in short)


def test_a_rank_reads_each_shard_once(store):
    """Front to back, whatever the order of what it gives."""
    plan = EpochPlan(Order(*_arrays(store), True, 5, 0, None, False), 0)
    part = plan.part(Worker(1, 0, 1, 0))
    units = LatentDataset(store).index.units[part]
    changes = np.flatnonzero(np.diff(units))
    assert len(changes) == len(set(units.tolist())) - 1
    for unit in set(units.tolist()):
        inside = part[units == unit]
        assert (np.diff(inside) == 1).all()


def _arrays(store: Path) -> tuple[np.ndarray, np.ndarray]:
    index = LatentDataset(store).index
    return index.units, index.shape_ids


@pytest.mark.parametrize("kind", ["store", "tars"])
def test_items_are_those_of_the_dataset(kind, request):
    path = request.getfixturevalue(kind)
    known = {item["key"]: item for item in LatentDataset(path)}
    for place in (path, remote(path, f"items-{kind}")):
        for options in ({}, {"shuffle": False}):
            items = list(LatentStream(place, shuffle_buffer=4, **options))
            assert (keys_of(items) == list(known)) == ("shuffle" in options)
            assert sorted(keys_of(items)) == sorted(known)
            for item in items:
                own = known[item["key"]]
                assert item.keys() == own.keys() and item["caption"] == own["caption"]
                assert torch.equal(item["latent"], own["latent"])
                assert torch.equal(item["crop"], own["crop"])


def test_options_are_those_of_the_dataset(store):
    item = next(iter(LatentStream(store, shuffle=False, state="raw", captions=False)))
    own = LatentDataset(store, state="raw", captions=False)[0]
    assert torch.equal(item["latent"], own["latent"]) and item.keys() == own.keys()


@pytest.mark.parametrize("size", [None, 3])
@pytest.mark.parametrize("workers", [0, 2, 4])
def test_each_sample_comes_once(store, size, workers):
    for ranks in (1, 2):
        streams = [
            LatentStream(store, batch_size=size, num_replicas=ranks, rank=r, shuffle_buffer=7)
            for r in range(ranks)
        ]
        epochs = []
        for epoch in range(2):
            counts = {stream.batches(workers) for stream in streams}
            given = [
                list(DataLoader(stream, batch_size=None, num_workers=workers)) for stream in streams
            ]
            assert sorted(keys_of(item for own in given for item in own)) == sorted(KEYS)
            # The epoch went on by itself, seen from here too.
            assert [stream.epoch for stream in streams] == [epoch + 1] * ranks
            if size is not None:
                assert counts == {len(own) for own in given} and len(counts) == 1
                assert all(len({t.shape for t in b["latent"]}) == 1 for own in given for b in own)
            epochs.append(keys_of(given[0]))
        assert epochs[0] != epochs[1]


@pytest.mark.parametrize(("workers", "context"), [(2, "fork"), (1, "spawn")])
def test_workers_that_stay_have_new_epochs(store, workers, context):
    stream = LatentStream(store, shuffle_buffer=7)
    loader = DataLoader(
        stream,
        batch_size=None,
        num_workers=workers,
        persistent_workers=True,
        multiprocessing_context=context,
    )
    epochs = [keys_of(loader) for _ in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(KEYS) and epochs[0] != epochs[1]
    stream.set_epoch(0)
    assert keys_of(loader) == epochs[0]


@settings(deadline=None, max_examples=12)
@given(
    stops=st.lists(st.integers(0, 12), min_size=1, max_size=3),
    size=st.none() | st.integers(1, 4),
    far=st.booleans(),
)
def test_on_from_a_stop(store, stops, size, far):
    path = remote(store, "stops") if far else store

    def stream() -> LatentStream:
        return LatentStream(path, batch_size=size, shuffle_buffer=7, seed=2)

    first = keys_of(stream())
    current, given = stream(), []
    current.set_epoch(0)
    for stop in stops:
        items = iter(current)
        for _ in range(stop):
            given += keys_of([item] if (item := next(items, None)) else [])
        state = current.state_dict()
        current = stream()
        current.load_state_dict(state)
        if state["epoch"] == 1:
            break
    else:
        given += keys_of(current)
    assert given == first and current.epoch == 1


def test_shards_before_a_stop_are_not_fetched(store):
    url = remote(store, "fetched")
    files = fsspec.filesystem("memory")
    whole = LatentStream(url, shuffle=False)
    items = iter(whole)
    given = [next(items)["key"] for _ in range(5)]
    state = whole.state_dict()
    del items
    for unit in (0, 1):
        files.rm_file(f"/fetched/shards/{unit:06d}.safetensors")
    rest = LatentStream(url, shuffle=False, allow_partial=True)
    assert len(rest.dataset) == len(KEYS) - 5
    whole.load_state_dict(state)
    assert given + keys_of(whole) == KEYS


def test_positions_of_others_are_refused(store):
    state = LatentStream(store, batch_size=3).state_dict()
    with pytest.raises(UsageError, match="batch_size is 3 in the state and 2 here"):
        LatentStream(store, batch_size=2).load_state_dict(state)
    stream = LatentStream(store)
    next(iter(stream))
    other = LatentStream(store)
    other.load_state_dict(stream.state_dict())
    with pytest.raises(UsageError, match="with num_workers=1 cannot be resumed with 2"):
        list(DataLoader(other, batch_size=None, num_workers=2))
    with pytest.raises(UsageError, match="give batch_size"):
        LatentStream(store, drop_last=True)
    with pytest.raises(UsageError, match="at least one sample"):
        LatentStream(store, batch_size=0)


@pytest.mark.parametrize("far", [False, True])
@pytest.mark.parametrize("size", [None, 2])
def test_damaged_shards(tmp_path, far, size):
    """Of unit 1 a byte is wrong, of unit 3 the header, and unit 2 disappears."""
    store = make_store(tmp_path / "store", [[(2, 2)] * 3] * 5)
    shard = store / "shards" / "000001.safetensors"
    data = bytearray(shard.read_bytes())
    data[-3] ^= 1
    shard.write_bytes(data)
    size_of = read_record(store, 3).bytes
    (store / "shards" / "000003.safetensors").write_bytes(bytes(size_of))
    path: Any = remote(store, tmp_path.name) if far else store
    name = r"00000[13]\.safetensors"
    with pytest.raises(StoreError, match=name):
        list(LatentStream(path, check="open", batch_size=size))
    (store / "shards" / "000002.safetensors").unlink()
    path = remote(store, f"{tmp_path.name}-gone") if far else store
    with pytest.warns(RuntimeWarning) as told:
        stream = LatentStream(path, check="open", batch_size=size, skip_damaged=True)
        items = list(stream)
    ours = [one for one in told if one.category is DamagedShard]
    assert stream.damaged == (1, 2, 3) and len(ours) == 3
    keys = Counter(keys_of(items))
    assert set(keys) == {key_of(unit, i) for unit in (0, 4) for i in range(3)}
    if size is None:
        assert set(keys.values()) == {1}
        assert all(
            torch.equal(item["latent"], value(item["key"], "latent", (4, 2, 2))) for item in items
        )
    else:
        # Batches of which nothing is left have another sample instead.
        assert len(items) == 6


def test_temporary_files_are_deleted(store, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    url = remote(store, "temporary")
    items = iter(LatentStream(url))
    next(items)
    (folder,) = tmp_path.iterdir()
    assert 1 <= len(list(folder.glob("*.safetensors"))) <= 2
    for _ in items:
        assert len(list(folder.glob("*.safetensors"))) <= 2
    assert list(tmp_path.iterdir()) == []
    items = iter(LatentStream(url))
    next(items)
    del items
    assert list(tmp_path.iterdir()) == []


def test_a_remote_shard_is_read_in_one_go(store):
    url = remote(store, "requests")
    stream = LatentStream(url)
    files = fsspec.filesystem("memory")
    asked: Counter[str] = Counter()
    read = type(files).cat_file

    def counting(self: Any, path: str, *words: Any, **more: Any) -> bytes:
        asked[Path(path).name] += 1
        return read(self, path, *words, **more)

    type(files).cat_file = counting
    try:
        assert len(list(stream)) == len(KEYS)
    finally:
        type(files).cat_file = read
    shards = {name: count for name, count in asked.items() if name.endswith(".safetensors")}
    assert len(shards) == 5 and set(shards.values()) == {1}
