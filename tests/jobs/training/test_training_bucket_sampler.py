"""Batches of one size: exactly once, equally many for each rank, and on from any stop."""

from __future__ import annotations

from collections import Counter
from itertools import chain
from typing import Any

import pytest
from harness.made_up_stores import make_store
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Subset

from latentcli import BucketBatchSampler, LatentDataset, collate
from latentcli.core.errors import UsageError
from latentcli.jobs.training.ranks import UnequalRanks

SHAPES = [(2, 3), (3, 2), (2, 2), (1, 5)]
UNITS = [
    [(2, 3), (3, 2), None, (2, 3), (2, 3)],
    [(2, 2)],
    [None],
    [(3, 2), (3, 2), (2, 3), (2, 3), (2, 3), (2, 2), (2, 3)],
    [(2, 3)] * 6,
]
COUNT = 18


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return LatentDataset(make_store(tmp_path_factory.mktemp("store") / "store", UNITS))


class Sizes(LatentDataset):
    """A dataset of which a sampler needs nothing but sizes, made in no time."""

    def __init__(self, ids: list[int]) -> None:
        from harness.made_up_stores import CHANNELS

        from latentcli.core.types import Row
        from latentcli.jobs.training.sample_index import SampleIndex

        shapes = [(CHANNELS, *SHAPES[n]) for n in ids]
        rows = [Row(f"{i}", "", "ok", latent_shape=shape) for i, shape in enumerate(shapes)]
        self.index = SampleIndex([(0, rows)])


def all_ranks(dataset: LatentDataset, ranks: int, size: int, **options: Any) -> list[Any]:
    return [
        BucketBatchSampler(dataset, size, num_replicas=ranks, rank=rank, **options)
        for rank in range(ranks)
    ]


def check_sizes(dataset: LatentDataset, batches: list[list[int]], size: int) -> None:
    for batch in batches:
        assert 0 < len(batch) <= size
        assert len({dataset.index.shape_ids[i] for i in batch}) == 1


@pytest.mark.filterwarnings("ignore::latentcli.jobs.training.ranks.UnequalRanks")
@settings(deadline=None, max_examples=150)
@given(
    ids=st.lists(st.integers(0, 3), min_size=4, max_size=70),
    size=st.integers(1, 9),
    ranks=st.sampled_from([1, 2, 4]),
    seed=st.integers(0, 3),
    shuffle=st.booleans(),
    stops=st.lists(st.integers(0, 30), max_size=3),
)
def test_each_sample_comes_once(ids, size, ranks, seed, shuffle, stops):
    """Over all ranks, in each epoch, also where the job stops and goes on, more than once."""
    dataset = Sizes(ids)
    samplers = all_ranks(dataset, ranks, size, seed=seed, shuffle=shuffle)
    orders = []
    for epoch in range(3):
        given: list[list[list[int]]] = [[] for _ in samplers]
        lengths = {len(sampler) for sampler in samplers}
        whole = min(lengths) if len(lengths) == 1 else min(lengths) - 1
        for stop in stops if epoch == 1 else []:
            for rank, sampler in enumerate(samplers):
                had = len(given[rank])
                batches = iter(sampler)
                given[rank] += [next(batches) for _ in range(min(stop, whole - had))]
            states = [sampler.state_dict() for sampler in samplers]
            assert all(state == states[0] for state in states)
            samplers = all_ranks(dataset, ranks, size, seed=seed, shuffle=shuffle)
            for sampler in samplers:
                sampler.load_state_dict(states[0])
            if len(lengths) == 1 and len(given[0]) == whole:
                break
        else:
            for rank, sampler in enumerate(samplers):
                given[rank] += list(sampler)
        even = len({len(own) for own in given}) == 1
        # With batches of one there is nothing to halve.
        assert even or sum(map(len, given)) > len(ids) - ranks
        together = list(chain.from_iterable(given))
        check_sizes(dataset, together, size)
        assert sorted(chain.from_iterable(together)) == list(range(len(ids)))
        assert all(sampler.epoch == epoch + 1 for sampler in samplers)
        orders.append(given)
    if shuffle and len(ids) > 20:
        assert orders[0] != orders[1] != orders[2]
    elif not shuffle:
        assert orders[0] == orders[1] == orders[2]


@settings(deadline=None, max_examples=60)
@given(
    ids=st.lists(st.integers(0, 3), min_size=1, max_size=50),
    size=st.integers(1, 9),
    ranks=st.sampled_from([1, 2, 4]),
)
def test_full_batches_alone(ids, size, ranks):
    dataset = Sizes(ids)
    repeating = [list(s) for s in all_ranks(dataset, ranks, size, repeat_last=True)]
    assert len({len(own) for own in repeating}) == 1
    together = list(chain.from_iterable(repeating))
    check_sizes(dataset, together, size)
    assert all(len(batch) == size for batch in together)
    assert set(chain.from_iterable(together)) == set(range(len(ids)))
    full = sum(count // size for count in Counter(ids).values())
    if full < ranks:
        # A loop over no batch at all would turn for ever, without a word.
        with pytest.raises(UsageError, match="drop_last leaves"):
            list(all_ranks(dataset, ranks, size, drop_last=True)[0])
        return
    dropping = [list(s) for s in all_ranks(dataset, ranks, size, drop_last=True)]
    assert len({len(own) for own in dropping}) == 1
    together = list(chain.from_iterable(dropping))
    assert all(len(batch) == size for batch in together)
    assert max(Counter(chain.from_iterable(together)).values(), default=0) <= 1
    assert full - ranks < len(together) <= full


def test_order_follows_from_seed_and_epoch(dataset):
    def epochs(**options: Any) -> list[list[list[int]]]:
        sampler = BucketBatchSampler(dataset, 2, **options)
        return [list(sampler) for _ in range(2)]

    assert epochs(seed=1) == epochs(seed=1) != epochs(seed=2)
    again = BucketBatchSampler(dataset, 2, seed=1)
    again.set_epoch(1)
    assert [list(again)] == epochs(seed=1)[1:]
    again.set_epoch(0)
    assert [list(again)] == epochs(seed=1)[:1]
    # An epoch that was not read to its end begins anew.
    next(iter(again))
    assert [list(again)] == epochs(seed=1)[1:]
    index = next(iter(BucketBatchSampler(dataset, 2, seed=4)))[0]
    assert (index.epoch, index.seed) == (0, 4)


def test_ranks_are_found(dataset, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    found = BucketBatchSampler(dataset, 2)
    assert list(found) == list(BucketBatchSampler(dataset, 2, num_replicas=2, rank=1))
    monkeypatch.setenv("RANK", "two")
    with pytest.raises(UsageError, match="not whole numbers"):
        BucketBatchSampler(dataset, 2)


def test_what_is_refused(dataset):
    for words, options in {
        "go together": {"num_replicas": 2},
        "rank is 2 of 2": {"num_replicas": 2, "rank": 2},
        "choose one": {"drop_last": True, "repeat_last": True},
        "at least one": {"batch_size": 0},
        "no latent size there are more than 13": {"batch_size": 14, "drop_last": True},
    }.items():
        with pytest.raises(UsageError, match=words):
            BucketBatchSampler(dataset, **{"batch_size": 2, **options})
    with pytest.warns(UnequalRanks, match="18 batches cannot .* among 4 ranks, so the first 2"):
        lengths = [len(sampler) for sampler in all_ranks(dataset, 4, 1)]
    assert lengths == [5, 5, 4, 4]
    assert len(BucketBatchSampler(dataset, 2, num_replicas=19, rank=0, repeat_last=True)) == 1
    with pytest.raises(UsageError, match=r"use_distributed_sampler=False"):
        BucketBatchSampler([1, 2, 3], 2)


def test_a_state_of_another_order_is_refused(dataset):
    state = BucketBatchSampler(dataset, 2).state_dict()
    for name, options in {
        "batch_size is 2 in the state and 3 here": {"batch_size": 3},
        "seed is 0 in the state and 1 here": {"seed": 1},
        "num_replicas is 1 in the state and 2 here": {"num_replicas": 2, "rank": 0},
    }.items():
        other = BucketBatchSampler(dataset, **{"batch_size": 2, **options})
        with pytest.raises(UsageError, match=name):
            other.load_state_dict(state)


@pytest.mark.parametrize("workers", [0, 2, 4])
def test_loaders_go_on_from_what_the_loop_had(dataset, workers):
    """A loader with workers has asked the sampler for more batches than came out of it."""

    def loader(sampler: BucketBatchSampler) -> DataLoader[Any]:
        return DataLoader(dataset, batch_sampler=sampler, collate_fn=collate, num_workers=workers)

    for stop in (1, 5):
        sampler = BucketBatchSampler(dataset, 2)
        batches = iter(loader(sampler))
        keys = [key for _ in range(stop) for key in next(batches)["key"]]
        state = sampler.state_dict(batches=stop)
        del batches
        rest = BucketBatchSampler(dataset, 2)
        rest.load_state_dict(state)
        keys += [key for batch in loader(rest) for key in batch["key"]]
        assert sorted(keys) == sorted(dataset.keys)


def test_a_part_of_a_dataset(dataset):
    part = Subset(dataset, [16, 3, 5, 9])
    loader = DataLoader(part, batch_sampler=BucketBatchSampler(part, 2), collate_fn=collate)
    keys = [key for batch in loader for key in batch["key"]]
    assert sorted(keys) == sorted(dataset.keys[i] for i in (16, 3, 5, 9))
