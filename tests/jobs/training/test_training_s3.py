"""Training loops over object storage: a real S3 server, forked workers and several ranks."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from harness.made_up_stores import Kind, caption_of, key_of, make_store, value
from harness.s3 import S3Server, needs_s3, s3_server
from harness.stores import Bucket
from harness.warm import SERVER, warm_server
from torch.utils.data import DataLoader

from latentcli import BucketBatchSampler, LatentDataset, LatentStream, collate
from latentcli.core.errors import StoreError

pytestmark = needs_s3

UNITS = [[(2, 3), (3, 2), (2, 3)], [(2, 2)] * 5, [None, (2, 3)], [(2, 3)] * 6 + [(3, 2), (2, 2)]]
KEYS = sorted(key_of(u, i) for u, unit in enumerate(UNITS) for i, size in enumerate(unit) if size)
RANKS, WORKERS = 2, 2


@pytest.fixture(scope="module")
def server():
    with s3_server() as server:
        yield server


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("store") / "store", UNITS)


@pytest.fixture(scope="module")
def store(server, local):
    return put(server, local)


def put(server: S3Server, local: Path) -> str:
    url = f"{server.bucket()}/store"
    Bucket(url).put(local)
    return url


def buckets(url: str, rank: int = 0, ranks: int = 1) -> tuple[LatentDataset, BucketBatchSampler]:
    dataset = LatentDataset(url)
    return dataset, BucketBatchSampler(dataset, 3, num_replicas=ranks, rank=rank)


def loader_of(kind: str, url: str, rank: int) -> DataLoader[Any]:
    """The loader of one rank, with workers."""
    own: dict[str, Any] = {"num_workers": WORKERS, "multiprocessing_context": "fork"}
    if kind == "stream":
        stream = LatentStream(url, batch_size=3, shuffle_buffer=7, num_replicas=RANKS, rank=rank)
        return DataLoader(stream, batch_size=None, **own)
    dataset, sampler = buckets(url, rank, RANKS)
    # What was read here must not spoil the reading of a worker that is forked from here.
    assert dataset[0]["key"] == dataset.keys[0]
    return DataLoader(dataset, batch_sampler=sampler, collate_fn=collate, **own)


def keys_of(batches: Any) -> list[str]:
    return [key for batch in batches for key in batch["key"]]


def load_parts(kind: str, url: str, variables: dict[str, str], path: Path) -> None:
    """The batches of each rank, in a process as a training script is: without our tests' threads,
    which may hold what a fork of theirs would wait for."""
    os.environ.update(variables)
    torch.save([list(loader_of(kind, url, rank)) for rank in range(RANKS)], path)


@pytest.mark.parametrize("kind", ["dataset", "stream"])
def test_each_sample_comes_once(store, kind, tmp_path):
    warm_server()
    given = (kind, store, dict(os.environ), tmp_path / "parts")
    process = SERVER.Process(target=load_parts, args=given)
    process.start()
    process.join()
    assert process.exitcode == 0
    parts = torch.load(tmp_path / "parts", weights_only=False)
    assert sorted(keys_of(batch for part in parts for batch in part)) == KEYS
    assert len({len(part) for part in parts}) == 1
    for batch in (batch for part in parts for batch in part):
        for key, latent, caption in zip(
            batch["key"], batch["latent"], batch["caption"], strict=True
        ):
            assert torch.equal(latent, value(key, "latent", latent.shape))
            assert caption == caption_of(key)


@pytest.mark.parametrize("stop", [1, 3])
def test_a_stream_goes_on_from_a_stop(store, stop):
    def stream() -> LatentStream:
        return LatentStream(store, batch_size=2, shuffle_buffer=5, seed=3)

    whole = keys_of(stream())
    first = stream()
    batches = iter(first)
    given = keys_of(next(batches) for _ in range(stop))
    state = json.loads(json.dumps(first.state_dict()))
    second = stream()
    second.load_state_dict(state)
    assert given + keys_of(second) == whole and sorted(whole) == KEYS


@pytest.mark.parametrize("kind", ["dataset", "stream"])
def test_workers_go_on_from_a_stop(store, kind):
    stateful = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader

    def loader() -> Any:
        if kind == "stream":
            stream = LatentStream(store, batch_size=2, shuffle_buffer=5)
            return stateful(stream, batch_size=None, num_workers=WORKERS)
        dataset, sampler = buckets(store)
        return stateful(dataset, batch_sampler=sampler, collate_fn=collate, num_workers=WORKERS)

    whole = keys_of(loader())
    first = loader()
    batches = iter(first)
    given = keys_of(next(batches) for _ in range(3))
    state = first.state_dict()
    del batches
    second = loader()
    second.load_state_dict(state)
    assert given + keys_of(second) == whole and sorted(whole) == KEYS


def flipped(server: S3Server, local: Path, folder: Path) -> str:
    """A store of which a byte of a latent in unit 1 is another one, which no reader can see."""
    shutil.copytree(local, folder)
    shard = folder / "shards" / "000001.safetensors"
    data = bytearray(shard.read_bytes())
    data[-3] ^= 1
    shard.write_bytes(data)
    return put(server, folder)


def test_a_byte_that_flipped_is_found(server, local, tmp_path):
    url = flipped(server, local, tmp_path / "store")
    assert sorted(keys_of(LatentStream(url, batch_size=2))) == KEYS
    dataset = LatentDataset(url, check="open")
    of_unit = [place for place, key in enumerate(dataset.keys) if key.startswith("0001")]
    assert dataset[0]["key"] == KEYS[0]
    for places in (of_unit[:1], of_unit):
        with pytest.raises(StoreError, match=r"000001\.safetensors is not what was written"):
            dataset.__getitems__(places)
    with pytest.raises(StoreError, match=r"000001\.safetensors is not what was written"):
        list(LatentStream(url, check="open"))


@pytest.mark.parametrize("kind", ["dataset", "stream"])
def test_a_byte_that_flipped_is_left_out_by_workers(server, local, tmp_path, kind):
    url = flipped(server, local, tmp_path / "store")
    options: dict[str, Any] = {"check": "open", "skip_damaged": True}
    if kind == "stream":
        source: Any = LatentStream(url, **options)
        items: Any = DataLoader(source, batch_size=None, num_workers=WORKERS)
    else:
        source = LatentDataset(url, **options)
        items = DataLoader(source, batch_size=1, collate_fn=lambda own: own[0], num_workers=WORKERS)
    found = [item["key"] for item in items]
    sound = [key for key in KEYS if not key.startswith("0001")]
    # A batch of which nothing is left has another sample instead; a stream needs none.
    assert (sorted(found) if kind == "stream" else sorted(set(found))) == sound
    assert source.damaged == (1,)


@pytest.mark.parametrize(
    ("kind", "most"),
    [(Kind(), 2), (Kind(state="moments", flip=True), 2), (Kind(captions=False), 1)],
)
def test_a_batch_of_one_shard_costs_few_requests(server, tmp_path, kind, most):
    """One for the latents that lie near each other, one for the captions."""
    local = make_store(tmp_path / "store", [[(16, 16)] * 64], kind)
    with server.proxy() as proxy:
        dataset = LatentDataset(put(server, local))
        dataset[0]
        for places in (range(8), [60, 1, 35, 20, 11, 12, 50, 44]):
            proxy.requests.clear()
            items = dataset.__getitems__(list(places))
            assert 0 < len(proxy.requests) <= most, proxy.requests
            assert [item["key"] for item in items] == [dataset.keys[place] for place in places]


def test_a_batch_of_many_large_latents_does_not_fetch_what_lies_between(server, tmp_path):
    """The bytes that are asked for are at most some more than those of the batch."""
    local = make_store(tmp_path / "store", [[(256, 256)] * 6], Kind(captions=False))
    with server.proxy() as proxy:
        dataset = LatentDataset(put(server, local))
        dataset[0]
        proxy.requests.clear()
        first, second = dataset.__getitems__([0, 5])
        assert len(proxy.requests) == 2
    for item in (first, second):
        assert torch.equal(item["latent"], value(item["key"], "latent", (4, 256, 256)))
