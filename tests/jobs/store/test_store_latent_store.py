"""A store from Python: by key, as a torch dataset in worker processes, and described."""

from __future__ import annotations

import json
import pickle
import shutil
from collections import Counter

import pytest
import torch
from jobkit import latents_of, rows_of
from torch.utils.data import DataLoader

import latentcli
from latentcli import LatentDataset, LatentStore, open_store
from latentcli.core.errors import IncompleteStore, StoreError, UsageError
from latentcli.core.posterior import Posterior
from latentcli.jobs.store.inspect import inspect_store


def test_a_store_is_a_mapping(mixed_store):
    store, latents = open_store(mixed_store), latents_of(mixed_store)
    keys = [row["key"] for row in rows_of(mixed_store) if row["status"] == "ok"]
    assert isinstance(store, LatentStore)
    assert len(store) == 23 and list(store) == list(store.keys()) == keys
    for key in reversed(keys):
        assert key in store
        assert store[key].dtype == torch.bfloat16
        assert torch.equal(store[key], latents[f"{key}/latent"])
        assert set(store.parts(key)) == {"latent"}
    assert store.state == "whitened" and store.metadata["model"].endswith("toy")
    assert store.manifest.totals.encoded == 23
    assert len(list(store.rows())) == 25
    assert "23 latents" in repr(store)


def test_unknown_and_failed_keys(mixed_store):
    store = open_store(mixed_store)
    assert "nothing" not in store and "000/000010" not in store and 3 not in store
    with pytest.raises(StoreError, match="no key 'nothing'"):
        store["nothing"]
    with pytest.raises(StoreError, match=r"no latent.*cut short"):
        store["000/000010"]
    assert store.row("000/000010").stage == "decode_image"


def test_moments(moments_store):
    store, latents = open_store(moments_store), latents_of(moments_store)
    key = next(iter(store))
    mean, logsnr = latents[f"{key}/mean"], latents[f"{key}/logsnr"]
    assert store.state == "moments" and set(store.parts(key)) == {"mean", "logsnr"}
    torch.testing.assert_close(store[key], Posterior(mean, logsnr).mode())
    assert store[key].dtype == torch.float32


def test_one_shard(mixed_store):
    shard = open_store(mixed_store / "shards" / "000001.safetensors")
    assert list(shard) == [f"000/{i:06d}" for i in range(4, 8)]
    assert shard.manifest is None


def test_a_store_goes_to_other_processes(mixed_store):
    store = open_store(mixed_store)
    first = store[next(iter(store))]
    copy = pickle.loads(pickle.dumps(store))
    assert torch.equal(copy[next(iter(copy))], first)


def test_no_store(tmp_path):
    with pytest.raises(StoreError, match="no such folder"):
        open_store(tmp_path / "nowhere")
    with pytest.raises(StoreError, match=r"no manifest\.json"):
        open_store(tmp_path)


def test_public_names():
    assert latentcli.open_store is open_store
    with pytest.raises(AttributeError, match="nothing"):
        latentcli.nothing  # noqa: B018


def test_a_dataset_in_two_workers(mixed_store):
    dataset = LatentDataset(mixed_store, dtype=torch.float32)
    loader = DataLoader(
        dataset, batch_size=None, shuffle=True, num_workers=2, multiprocessing_context="spawn"
    )
    store = open_store(mixed_store)
    seen: Counter[str] = Counter()
    for item in loader:
        seen[item["key"]] += 1
        assert item["latent"].dtype == torch.float32
        assert torch.equal(item["latent"], store[item["key"]].float())
        row = store.row(item["key"])
        assert tuple(item["original_size"]) == row.original_size
        assert tuple(item["crop"]) == row.crop
    assert seen == Counter(list(store))


def part_of(store, folder, *names):
    """A copy of a store of which an upload or a copy left some shards' files out."""
    shutil.copytree(store, folder)
    for name in names:
        (folder / "shards" / name).unlink()
    return folder


def test_a_partial_store_is_refused(mixed_store, tmp_path):
    """Unit 1 of 7 is not there at all, and of unit 3 the shard is gone."""
    names = ("000001.safetensors", "000001.json", "000003.safetensors")
    part = part_of(mixed_store, tmp_path / "part", *names)
    with pytest.raises(IncompleteStore) as told:
        LatentDataset(part)
    assert told.value.exit_code == 3
    assert "8 of 23 samples are missing" in str(told.value)
    assert "000003.safetensors is missing" in str(told.value) and "unit 1: not encoded" in str(
        told.value
    )
    assert "same encode command" in str(told.value) and "allow_partial=True" in str(told.value)
    store, dataset = open_store(part), LatentDataset(part, allow_partial=True)
    assert len(store) == len(dataset) == len(list(store)) == 15
    assert [item["key"] for item in dataset] == list(store)
    assert "15 latents, not complete" in repr(store)


def test_a_store_that_is_written_to_is_partial(mixed_store, tmp_path):
    part = part_of(mixed_store, tmp_path / "part", "000006.json", "000006.safetensors")
    manifest = json.loads((part / "manifest.json").read_text()) | {"status": "running"}
    (part / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(IncompleteStore, match="1 of 23 samples are missing"):
        LatentDataset(part)
    assert len(LatentDataset(part, allow_partial=True)) == 22


def test_a_damaged_record_makes_a_store_partial(mixed_store, tmp_path):
    part = part_of(mixed_store, tmp_path / "part")
    (part / "shards" / "000001.json").write_text("{}")
    with pytest.raises(IncompleteStore, match=r"4 of 23 samples .*000001\.json is damaged"):
        LatentDataset(part)
    dataset = LatentDataset(part, allow_partial=True)
    assert len(dataset) == len(dataset.store) == 19


def test_workers_check_the_shards_that_they_open(mixed_store, tmp_path):
    part = part_of(mixed_store, tmp_path / "part")
    path = part / "shards" / "000002.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 4
    path.write_bytes(data)
    assert len([item["latent"] for item in LatentDataset(part)]) == 23
    dataset = LatentDataset(part, check="open")
    for context in ("fork", "spawn"):
        loader = DataLoader(
            dataset, batch_size=None, num_workers=1, multiprocessing_context=context
        )
        keys = []
        with pytest.raises(StoreError, match=r"000002\.safetensors is not what was written"):
            for item in loader:
                keys.append(item["key"])
        assert keys == dataset.keys[:8]
    assert open_store(mixed_store, check="open")[dataset.keys[8]].shape
    with pytest.raises(UsageError, match="check is 'often'"):
        open_store(mixed_store, check="often")


def test_items(mixed_store, moments_store):
    dataset = LatentDataset(mixed_store, transform=lambda item: item["latent"].shape)
    assert len(dataset) == 23 and dataset[0] == (8, 3, 4)
    assert LatentDataset(mixed_store)[0]["latent"].dtype == torch.bfloat16
    mode = LatentDataset(moments_store)
    assert torch.equal(mode[0]["latent"], mode[0]["latent"])
    with pytest.raises(IndexError):
        dataset[23]


def test_fresh_samples_need_moments(mixed_store, moments_store):
    with pytest.raises(UsageError, match="--latents moments"):
        LatentDataset(mixed_store, sample=True)
    dataset = LatentDataset(moments_store, sample=True)
    draws = torch.stack([dataset[0]["latent"] for _ in range(200)])
    parts = open_store(moments_store).parts(dataset.keys[0])
    posterior = Posterior(parts["mean"], parts["logsnr"])
    assert not torch.equal(draws[0], draws[1])
    assert ((draws.mean(0) - posterior.mode()).abs() < 6 * posterior.sigma / 200**0.5).all()
    assert ((draws.std(0) / posterior.sigma - 1).abs() < 0.4).all()


def test_a_store_is_described(mixed_store):
    found = inspect_store(str(mixed_store))
    assert (found["encoded"], found["failed"]) == (23, 2)
    assert sum(found["latent_sizes"].values()) == 23 and "8x3x4" in found["latent_sizes"]
    assert sum(found["failures"].values()) == 2
    assert all(reason.startswith("decode_image: ") for reason in found["failures"])
    assert found["latent_space"].endswith("#whitened") and found["status"] == "complete"
    assert len(found["channels"]["mean"]) == 8
    json.dumps(found, allow_nan=False)


def test_channel_figures_are_those_of_the_latents(mixed_store):
    latents = [t.double().flatten(1) for t in latents_of(mixed_store).values()]
    values = torch.cat(latents, dim=1)
    found = inspect_store(str(mixed_store))["channels"]
    torch.testing.assert_close(torch.tensor(found["mean"]).double(), values.mean(1))
    expected = values.std(1, correction=0)
    torch.testing.assert_close(torch.tensor(found["std"]).double(), expected)


def test_a_shard_is_described(mixed_store):
    found = inspect_store(str(mixed_store / "shards" / "000000.safetensors"))
    assert (found["encoded"], found["failed"]) == (4, 0)
    assert found["metadata"]["format"] == "latentcli" and "status" not in found
    with pytest.raises(StoreError, match="There is no"):
        inspect_store(str(mixed_store / "nothing"))


def test_states(mixed_store, moments_store):
    store = open_store(mixed_store)
    latent = store[next(iter(store))]
    raw = store.in_state(latent, "raw")
    manifest = json.loads((mixed_store / "manifest.json").read_text())
    factors = manifest["latent"]["whitening"]
    mean, std = (torch.tensor(factors[name])[:, None, None] for name in ("mean", "std"))
    assert manifest["latent"]["state"] == "whitened"
    torch.testing.assert_close(raw, latent.float() * std + mean)
    assert torch.equal(store.in_state(latent, "whitened"), latent.float())
    with pytest.raises(UsageError, match=r"can be whitened or raw"):
        store.in_state(latent, "scaled")
    moments = open_store(moments_store)
    mode = moments[next(iter(moments))]
    assert torch.equal(moments.in_state(mode, "raw"), mode)
    assert not torch.equal(moments.in_state(mode, "whitened"), mode)


def test_states_of_a_single_shard(mixed_store):
    shard = open_store(mixed_store / "shards" / "000001.safetensors")
    latent = shard[next(iter(shard))]
    assert torch.equal(shard.in_state(latent, "whitened"), latent.float())
    with pytest.raises(StoreError, match="open its store"):
        shard.in_state(latent, "raw")


def test_the_normal_state_of_an_older_store(mixed_store, tmp_path):
    shutil.copytree(mixed_store, tmp_path / "old")
    manifest = json.loads((tmp_path / "old" / "manifest.json").read_text())
    del manifest["latent"]["state"]
    manifest["latent_space"] = manifest["latent_space"].replace("whitened", "raw")
    (tmp_path / "old" / "manifest.json").write_text(json.dumps(manifest))
    assert open_store(tmp_path / "old").normalisation.state == "whitened"
    manifest["latent"]["whitening"]["std"] = [7.7] * manifest["latent"]["channels"]
    (tmp_path / "old" / "manifest.json").write_text(json.dumps(manifest))
    assert open_store(tmp_path / "old").normalisation.state == "scaled"
    del manifest["latent"]["whitening"]
    (tmp_path / "old" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(StoreError, match="does not say how its latents are whitened"):
        _ = open_store(tmp_path / "old").normalisation
