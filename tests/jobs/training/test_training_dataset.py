"""Items of a store for training: what is in them, in which state, and what is drawn."""

from __future__ import annotations

import pickle

import pytest
import torch
from harness.made_up_stores import MEAN, STD, Kind, caption_of, key_of, make_store, value
from torch.utils.data import DataLoader

import latentcli
from latentcli import BucketBatchSampler, LatentDataset, collate, open_store
from latentcli.core.errors import StoreError, UsageError
from latentcli.core.posterior import posterior_of
from latentcli.jobs.training.damage import DamagedShard
from latentcli.jobs.training.draws import EpochIndex
from latentcli.jobs.training.sample_index import Keys

SIZES = [[(2, 3), None, (2, 3)], [(3, 2), (2, 3), (2, 3)], [(2, 3)] * 4]
KEYS = [key_of(u, i) for u, unit in enumerate(SIZES) for i, size in enumerate(unit) if size]
COUNT = len(KEYS)


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    kinds = {
        "whitened": Kind(),
        "raw": Kind("raw"),
        "moments": Kind("moments"),
        "flip": Kind(flip=True),
        "flip_moments": Kind("moments", flip=True),
        "tars": Kind(tars=True),
    }
    return {name: make_store(folder / name, SIZES, kind) for name, kind in kinds.items()}


def columns(values: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(values)[:, None, None]


@pytest.mark.parametrize("kind", ["whitened", "tars"])
def test_items(stores, kind):
    dataset = LatentDataset(stores[kind], fields=True)
    assert list(dataset.keys) == KEYS and len(dataset) == COUNT
    item = dataset[2]
    assert item["key"] == "0001/0000" and item["caption"] == caption_of("0001/0000")
    assert item["fields"] == {"caption": item["caption"]}
    assert torch.equal(item["latent"], value("0001/0000", "latent", (4, 3, 2)))
    numbers = {"original_size": [32, 49], "resized_size": [22, 24], "crop": [4, 0, 20, 24]}
    for name, expected in numbers.items():
        assert item[name].dtype == torch.int64 and item[name].tolist() == expected
    assert set(item) == {"key", "latent", "caption", "fields", *numbers}
    assert dataset[-1]["key"] == KEYS[-1]
    assert repr(dataset).endswith(f"{kind}', {COUNT} samples, toy#whitened)")
    for number in (COUNT, -COUNT - 1):
        with pytest.raises(IndexError, match=f"no sample {number}: .* has {COUNT}"):
            dataset[number]
    for other in (KEYS[0], slice(2)):
        with pytest.raises(TypeError, match=r"by its number, not by .*open_store"):
            dataset[other]


def test_a_plain_loader_stacks_them(tmp_path):
    make_store(tmp_path / "store", [[(2, 2)] * 3] * 2)
    batch = next(iter(DataLoader(LatentDataset(tmp_path / "store"), batch_size=6)))
    assert batch["latent"].shape == (6, 4, 2, 2) and len(batch["caption"]) == 6
    shapes = {n: tuple(batch[n].shape) for n in ("original_size", "resized_size", "crop")}
    assert shapes == {"original_size": (6, 2), "resized_size": (6, 2), "crop": (6, 4)}


def test_a_state_is_given_whatever_was_stored(stores):
    whitened = [item["latent"] for item in LatentDataset(stores["raw"], state="whitened")]
    raw = [item["latent"] for item in LatentDataset(stores["whitened"], state="raw")]
    modes = LatentDataset(stores["moments"], state="whitened")
    for place, key in enumerate(KEYS):
        shape = raw[place].shape
        stored = value(key, "latent", shape).float()
        assert torch.equal(raw[place], stored * columns(STD) + columns(MEAN))
        assert torch.equal(whitened[place], (stored - columns(MEAN)) / columns(STD))
        mean = value(key, "mean", shape).float()
        assert torch.equal(modes[place]["latent"], (mean - columns(MEAN)) / columns(STD))
    same = LatentDataset(stores["raw"], state="raw", dtype=torch.bfloat16)[0]["latent"]
    assert torch.equal(same, value(KEYS[0], "latent", (4, 2, 3)))
    assert LatentDataset(stores["raw"], state="raw")[0]["latent"].dtype == torch.float32
    with pytest.raises(UsageError, match="can be whitened or raw"):
        LatentDataset(stores["raw"], state="scaled")


@pytest.mark.parametrize(
    ("kind", "flip"),
    [
        *((kind, "random") for kind in ("whitened", "moments", "flip", "flip_moments", "tars")),
        *((kind, "both") for kind in ("flip", "flip_moments")),
    ],
)
def test_a_batch_is_its_items(stores, kind, flip):
    """To the last bit, whatever else is in the batch; and a batch of one size is copied once."""
    order = [EpochIndex(i, 1, 3) for i in (5, -1, 2, 0, 3, 8, 1, 1)]
    one_size = [index for index in order if index != 2]
    for options in ({}, {"state": "raw", "dtype": torch.float16, "fields": True}):
        sampled = {"sample": True} if "moments" in kind else {}
        dataset = LatentDataset(stores[kind], flip=flip, **options, **sampled)
        alone = {int(index): dataset[index] for index in order}
        for indices in (order, one_size):
            for index, item in zip(indices, dataset.__getitems__(indices), strict=True):
                other = alone[index]
                assert list(item) == list(other)
                for name, own in item.items():
                    if isinstance(own, torch.Tensor):
                        assert torch.equal(own, other[name]) and own.dtype == other[name].dtype
                    else:
                        assert own == other[name]
        items = dataset.__getitems__(one_size)
        batch = collate(items)
        assert batch["latent"].data_ptr() == items[0]["latent"].data_ptr()
        assert torch.equal(torch.stack([item["latent"] for item in items]), batch["latent"])
    skipping = LatentDataset(stores[kind], flip=flip, skip_damaged=True)
    assert [item["key"] for item in skipping.__getitems__(order)] == [KEYS[i] for i in order]


def drawn(dataset: LatentDataset, epoch: int, seed: int = 0) -> list[torch.Tensor]:
    return [dataset[EpochIndex(i, epoch, seed)]["latent"] for i in range(len(dataset))]


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_samples_follow_from_seed_epoch_and_index(stores):
    dataset = LatentDataset(stores["moments"], sample=True)
    first = drawn(dataset, 0)
    assert same(first, drawn(dataset, 0))
    assert same(first, drawn(pickle.loads(pickle.dumps(dataset)), 0))
    assert not same(first, drawn(dataset, 1)) and not same(first, drawn(dataset, 0, seed=1))
    posteriors = [posterior_of(dataset.store.parts(key)) for key in KEYS]
    noise = torch.cat(
        [
            ((latent - p.mode()) / torch.exp(p.logvar.float() / 2)).flatten()
            for epoch in range(30)
            for latent, p in zip(drawn(dataset, epoch), posteriors, strict=True)
        ]
    )
    assert noise.mean().abs() < 5 / len(noise) ** 0.5 and (noise.std() - 1).abs() < 0.05
    assert noise.unique().numel() > 0.99 * noise.numel()
    # A seed of its own wins over the sampler's, and set_epoch is for plain indices.
    own = LatentDataset(stores["moments"], sample=True, seed=0)
    assert same(drawn(own, 0, seed=7), first)
    assert same([own[i]["latent"] for i in range(COUNT)], first)
    own.set_epoch(1)
    assert same([own[i]["latent"] for i in range(COUNT)], drawn(dataset, 1))
    twice = [
        LatentDataset(stores["moments"], sample=True, generator=torch.Generator().manual_seed(3))
        for _ in range(2)
    ]
    assert torch.equal(twice[0][0]["latent"], twice[1][0]["latent"])
    assert not torch.equal(dataset[0]["latent"], dataset[0]["latent"])


def test_samples_do_not_depend_on_workers(stores):
    found = []
    for workers, context in ((0, None), (2, "fork"), (1, "spawn")):
        dataset = LatentDataset(stores["flip_moments"], sample=True, state="whitened")
        loader = DataLoader(
            dataset,
            batch_sampler=BucketBatchSampler(dataset, 2, seed=5),
            collate_fn=collate,
            num_workers=workers,
            multiprocessing_context=context,
        )
        batches = [batch for _ in range(2) for batch in loader]
        found.append([(b["key"], b["flipped"].tolist(), b["latent"]) for b in batches])
    for other in found[1:]:
        assert [b[:2] for b in other] == [b[:2] for b in found[0]]
        assert same([b[2] for b in other], [b[2] for b in found[0]])


def test_plain_samplers_learn_of_the_epoch(stores):
    dataset = LatentDataset(stores["moments"], sample=True, seed=1)
    loader = DataLoader(dataset, batch_size=None, num_workers=1, persistent_workers=True)
    epochs = []
    for epoch in range(2):
        dataset.set_epoch(epoch)
        epochs.append([item["latent"] for item in loader])
    assert same(epochs[0], drawn(dataset, 0)) and same(epochs[1], drawn(dataset, 1))


def test_mirrored_latents_are_drawn(stores):
    dataset = LatentDataset(stores["flip"])
    heads = 0
    for epoch in range(60):
        for place, key in enumerate(KEYS):
            item = dataset[EpochIndex(place, epoch, 0)]
            flipped = bool(item["flipped"])
            heads += flipped
            part = "latent_flip" if flipped else "latent"
            assert torch.equal(item["latent"], value(key, part, item["latent"].shape))
            width, (left, _, right, _) = int(item["resized_size"][0]), item["crop"].tolist()
            assert (left, right) == ((2, width - 4) if flipped else (4, width - 2))
            assert "latent_flip" not in item
    assert abs(heads / (60 * COUNT) - 0.5) < 0.1


def test_mirrored_latents_can_be_left_or_given(stores):
    own = LatentDataset(stores["flip"], flip="none")[0]
    both = LatentDataset(stores["flip"], flip="both")[0]
    assert torch.equal(own["latent"], both["latent"]) and "flipped" not in {*own, *both}
    assert torch.equal(both["latent_flip"], value(KEYS[0], "latent_flip", (4, 2, 3)))
    assert "latent_flip" not in own
    assert "flipped" not in LatentDataset(stores["whitened"])[0]
    with pytest.raises(UsageError, match="allowed are random, both, none"):
        LatentDataset(stores["flip"], flip="stored")
    for kind in ("whitened", "moments", "tars"):
        with pytest.raises(UsageError, match=r"no latents of mirrored pictures.*--flip both"):
            LatentDataset(stores[kind], flip="both")
    with pytest.raises(UsageError, match=r"'float32'; give a dtype of torch"):
        LatentDataset(stores["whitened"], dtype="float32")


def test_keys_are_compact():
    keys = Keys(["a", "", "é/b", "c"])
    assert list(keys) == ["a", "", "é/b", "c"] == keys and len(keys) == 4
    assert keys != ["a", "", "é/b", "d"] and keys != ["a"] and keys != 3
    assert (keys[2], keys[-1], keys[1:3], keys[::-2]) == ("é/b", "c", ["", "é/b"], ["c", ""])
    assert list(pickle.loads(pickle.dumps(keys))) == list(keys)
    with pytest.raises(IndexError):
        keys[4]
    assert len(Keys([])) == 0


def test_an_empty_store(tmp_path):
    make_store(tmp_path / "store", [[None, None]])
    dataset = LatentDataset(tmp_path / "store", state="raw")
    assert len(dataset) == 0 and list(BucketBatchSampler(dataset, 2)) == []


@pytest.mark.parametrize("tars", [False, True])
def test_a_flipped_byte_is_found(tmp_path, tars):
    store = make_store(tmp_path / "store", SIZES, Kind(tars=tars))
    name = f"000001.{'tar' if tars else 'safetensors'}"
    data = bytearray((store / "shards" / name).read_bytes())
    at = data.find(value("0001/0002", "latent", (4, 2, 3)).view(torch.uint8).numpy().tobytes())
    assert at > 0
    data[at + 5] ^= 4
    (store / "shards" / name).write_bytes(data)
    wrong = [item["latent"] for item in LatentDataset(store)]
    assert not torch.equal(wrong[4], value("0001/0002", "latent", (4, 2, 3)))
    dataset = LatentDataset(store, check="open")
    assert dataset[0]["key"] == KEYS[0]
    with pytest.raises(StoreError, match=rf"{name} is not what was written"):
        dataset[2]
    skipping = LatentDataset(store, check="open", skip_damaged=True)
    with pytest.warns(DamagedShard, match=rf"Unit 1 is left out: .*{name} is not") as told:
        items = skipping.__getitems__(range(COUNT))
    assert len(told) == 1 and skipping.damaged == (1,)
    assert [item["key"] for item in items] == [key for key in KEYS if not key.startswith("0001")]


def test_damage_is_skipped_and_counted(tmp_path):
    """A shard that is gone, a record that is damaged, a unit without files, lost captions."""
    units = [[(2, 2)] * 3] * 6
    store = make_store(tmp_path / "store", units)
    shards = store / "shards"
    (shards / "000000.safetensors").unlink()
    (shards / "000001.json").write_text("{}")
    for name in ("000002.json", "000002.safetensors", "000003.fields.jsonl"):
        (shards / name).unlink()
    with pytest.warns(DamagedShard) as told:
        dataset = LatentDataset(store, skip_damaged=True)
    assert dataset.damaged == (0, 1, 2) and len(told) == 3 and len(dataset) == 9
    for words in (
        "Unit 0 is left out: ",
        "000000.safetensors is missing",
        "000001.json is damaged",
    ):
        assert any(words in str(one.message) for one in told)
    # Found later, by the workers of a loader, and known here.
    (shards / "000005.safetensors").write_bytes(b"no shard")
    for workers in (2, 0):
        loader = DataLoader(
            dataset, batch_sampler=BucketBatchSampler(dataset, 2), num_workers=workers
        )
        keys = [key for batch in loader for key in batch["key"]]
        assert dataset.damaged == (0, 1, 2, 3, 5)
        # Batches of which nothing was left have one of these three again.
        assert set(keys) == {key_of(4, i) for i in range(3)} and len(keys) >= len(loader) == 5
    (shards / "000004.safetensors").write_bytes(b"no shard")
    with pytest.warns(DamagedShard):
        nothing = LatentDataset(store, skip_damaged=True)
        with pytest.raises(StoreError, match=r"no latent of size \[4, 2, 2\] left"):
            list(DataLoader(nothing, batch_size=4))


def test_without_skipping_a_damaged_shard_is_named(tmp_path):
    store = make_store(tmp_path / "store", [[(2, 2)] * 3] * 2)
    dataset = LatentDataset(store)
    (store / "shards" / "000001.safetensors").write_bytes(b"no shard")
    for workers in (0, 1):
        with pytest.raises(StoreError, match=r"000001\.safetensors is damaged"):
            list(DataLoader(dataset, batch_size=2, num_workers=workers))
    (store / "shards" / "000001.safetensors").unlink()
    with pytest.raises(StoreError, match=r"000001\.safetensors cannot be read"):
        dataset[3]


def test_names_complete_in_a_shell():
    assert {*latentcli.__all__, "__version__"} <= set(dir(latentcli))
    assert not {"TYPE_CHECKING", "annotations"} & set(dir(latentcli))
    assert {"LatentStream", "BucketBatchSampler", "collate", "LatentDataset"} <= set(dir(latentcli))
    assert latentcli.open_store is open_store
