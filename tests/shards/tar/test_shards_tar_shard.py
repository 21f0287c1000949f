"""Tar shards of ours read back, alone and in a store; what is wrong with damaged ones."""

from __future__ import annotations

import io
import pickle
import random
import shutil
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest
import storekit
import torch

from latentcli.core.errors import StoreError
from latentcli.core.types import InputRow, Member, Row
from latentcli.latents.stats import ChannelSums
from latentcli.shards.layout import INPUTS, shard_path
from latentcli.shards.storage.atomic_write import atomic_write
from latentcli.shards.storage.paths import path_of
from latentcli.shards.store.commit import Contents, TarOrigin, commit_tar
from latentcli.shards.store.input_list import InputList, write_inputs
from latentcli.shards.store.reader import StoreReader
from latentcli.shards.store.shard_file import open_shard
from latentcli.shards.store.verify import verify_shards
from latentcli.shards.store.writer import finish, open_for_writing
from latentcli.shards.tar.shard import TarShard
from latentcli.shards.tar.write import END, TarSample, header, tar_chunks
from latentcli.shards.tensors.file import SafetensorsFile
from latentcli.shards.tensors.write import write_safetensors

METADATA = {"format": "latentcli", "latent_space": "toy#whitened", "unit": "3"}


def sample(key: str, prefix: str = "", **metadata: str) -> TarSample:
    return TarSample(
        name=key,
        tensors={"latent": storekit.latent(key), "latent_flip": storekit.latent(key).flip(-1)},
        metadata=METADATA | metadata | {"key": prefix + key},
        document={
            "source": f"/data/{key}.jpg",
            "original_size": (24, 16),
            "crop": None,
            "latent_shape": (storekit.CHANNELS, 2, 3),
            "latent_space": "toy#whitened",
        },
        others=(Member("txt", key.encode()), Member("json", b"[1, 2]")),
    )


KEYS = ("z", "b/photo.2021", "b/photo", "ä ö", "long/" * 40 + "name")


@pytest.fixture
def path(tmp_path):
    atomic_write(tmp_path / "a.tar", tar_chunks(sample(key, "t/") for key in KEYS))
    return tmp_path / "a.tar"


def test_a_tar_is_read_like_a_safetensors_shard(path, tmp_path):
    tensors = {f"t/{k}/{part}": t for k in KEYS for part, t in sample(k).tensors.items()}
    write_safetensors(tmp_path / "b.safetensors", tensors, METADATA)
    with open_shard(path) as tar, open_shard(tmp_path / "b.safetensors") as other:
        assert type(tar) is TarShard and type(other) is SafetensorsFile
        assert tar.metadata == other.metadata == METADATA
        assert sorted(tar.names) == sorted(other.names)
        for name in tar.names:
            assert torch.equal(tar.tensor(name), tensors[name])
            assert torch.equal(tar.rows(name, 1, 3), tensors[name][1:3])
            assert tar.entries[name].shape == other.entries[name].shape
        copy = pickle.loads(pickle.dumps(tar))
        assert torch.equal(copy.tensor("t/z/latent"), storekit.latent("z"))
        with pytest.raises(StoreError, match="no tensor 't/z/mean'"):
            tar.tensor("t/z/mean")


def test_samples_stay_in_their_order_with_all_they_have(path):
    with TarShard(path) as shard:
        assert [name for name in shard.names if name.endswith("latent")] == [
            f"t/{key}/latent" for key in KEYS
        ]
        documents = dict(shard.documents())
        assert list(documents) == [f"t/{key}" for key in KEYS]
        assert documents["t/z"]["original_size"] == [24, 16]
        assert shard.others("t/b/photo") == sample("b/photo").others
        with pytest.raises(StoreError, match="has no key 'z'"):
            shard.others("z")


def test_opening_reads_no_data(tmp_path, monkeypatch):
    big = replace(sample("big"), tensors={"latent": torch.zeros(2**21, 1, 1)})
    atomic_write(tmp_path / "a.tar", tar_chunks([big, sample("z")]))
    read = 0
    scan = TarShard._read_header

    def counting(self, inner, size):
        def counted(begin, end):
            nonlocal read
            read += end - begin
            return inner(begin, end)

        return scan(self, counted, size)

    monkeypatch.setattr(TarShard, "_read_header", counting)
    assert len(TarShard(tmp_path / "a.tar").names) == 3
    assert read < 20_000


def test_a_tar_without_samples(tmp_path):
    (tmp_path / "a.tar").write_bytes(END)
    shard = TarShard(tmp_path / "a.tar")
    assert (shard.names, shard.metadata, list(shard.documents())) == ((), {}, [])


def test_a_tar_that_was_packed_again_by_tar(path, tmp_path):
    """GNU tar writes names, times and the end in its own way."""
    (tmp_path / "x").mkdir()
    subprocess.run(["tar", "-xf", path, "-C", tmp_path / "x"], check=True)
    names = sorted(str(p.relative_to(tmp_path / "x")) for p in (tmp_path / "x").rglob("*.*"))
    subprocess.run(
        ["tar", "--format=gnu", "-cf", tmp_path / "c.tar", "-C", tmp_path / "x", *names], check=True
    )
    with TarShard(path) as one, TarShard(tmp_path / "c.tar") as other:
        assert sorted(one.names) == sorted(other.names)
        assert torch.equal(other.tensor("t/ä ö/latent"), storekit.latent("ä ö"))


def test_a_cut_tar_is_never_taken_for_a_whole_one(path, tmp_path):
    data = path.read_bytes()
    cut = tmp_path / "cut.tar"
    marks = range(512, len(data), 512)
    for size in [*marks, *(mark + 100 for mark in marks), len(data) - 1, 1]:
        cut.write_bytes(data[:size])
        with pytest.raises(StoreError, match=r"cut\.tar is damaged: "):
            TarShard(cut)
    cut.write_bytes(data[:600])
    with pytest.raises(StoreError, match=r"'z.latent.safetensors' goes on to byte \d+"):
        TarShard(cut)
    cut.write_bytes(b"")
    with pytest.raises(StoreError, match="is empty"):
        TarShard(cut)
    with pytest.raises(StoreError, match="cannot be read: No such file"):
        TarShard(tmp_path / "gone.tar")


def test_damage_is_an_error_or_changes_no_name(path, tmp_path):
    """A flipped bit in a header is found; one in the data is for the digest to find."""
    data, chance = path.read_bytes(), random.Random(1)
    good = TarShard(path)
    names, found = good.names, 0
    for _ in range(600):
        at, bit = chance.randrange(len(data)), 1 << chance.randrange(8)
        bad = bytearray(data)
        bad[at] ^= bit
        (tmp_path / "bad.tar").write_bytes(bad)
        try:
            shard = TarShard(tmp_path / "bad.tar")
        except StoreError as error:
            found += 1
            assert "is damaged" in str(error)
        else:
            assert len(shard.names) == len(names)
    assert found > 100


def tar_bytes(*members: tuple[str, bytes]) -> bytes:
    parts = [header(name, len(data)) + data + bytes(-len(data) % 512) for name, data in members]
    return b"".join(parts) + END


def latent_bytes(**changes: str) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(b"".join(tar_chunks([sample("z", **changes)])))) as tar:
        return tar.extractfile("z.latent.safetensors").read()


ODD = {
    "twice": (
        tar_bytes(("z.txt", b"a"), ("z.txt", b"b")),
        "it holds 'z.txt' twice",
    ),
    "same key": (
        tar_bytes(
            ("a.latent.safetensors", latent_bytes()), ("b.latent.safetensors", latent_bytes())
        ),
        "'b' and 'a' both are of key 'z'",
    ),
    "other job": (
        b"".join(tar_chunks([sample("a"), sample("b", latent_space="other#raw")])),
        "'b' was made by another job than the samples before it",
    ),
    "no header": (
        tar_bytes(("z.latent.safetensors", b"12345678")),
        "'z.latent.safetensors': its header should take",
    ),
    "trailing": (tar_bytes(("z.txt", b"a")) + b"x" * 512, "something follows its end mark"),
    "two tars": (2 * tar_bytes(("z.txt", b"a")), "something follows its end mark"),
    "no key": (tar_bytes(("README", b"a")), "'README' is not named <key>.<field>"),
}


@pytest.mark.parametrize("what", ODD)
def test_odd_tars(tmp_path, what):
    data, message = ODD[what]
    (tmp_path / "odd.tar").write_bytes(data)
    with pytest.raises(StoreError, match=message):
        TarShard(tmp_path / "odd.tar")


def test_a_link_in_a_shard(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        link = tarfile.TarInfo("z.latent.safetensors")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    with pytest.raises(StoreError, match="links are not followed"):
        TarShard(tmp_path / "a.tar")


def make_store(store: Path) -> Path:
    """Three tars in, three tars out; the middle one has no sample that was encoded."""
    description = storekit.manifest(tars=True, write={"format": "webdataset"})
    open_for_writing(store, description)
    tars = [InputRow(f"t{unit}", f"/data/t{unit}.tar", unit) for unit in range(3)]
    write_inputs(store / INPUTS, tars)
    for tar in tars:
        samples, rows = [], []
        sums = ChannelSums()
        for i in range(4):
            key = f"{tar.key}/img.{i}"
            source = f"{tar.source}::img.{i}.jpg"
            if tar.unit == 1 or i == 2:
                rows.append(Row(key, source, "failed", stage="read", error="truncated"))
                continue
            rows.append(
                Row(
                    key,
                    source,
                    "ok",
                    original_size=(24, 16),
                    latent_shape=(storekit.CHANNELS, 2, 3),
                )
            )
            samples.append(sample(f"img.{i}", f"{tar.key}/", unit=str(tar.unit)))
            sums.add(storekit.latent(f"img.{i}")[None])
        commit_tar(
            store,
            tar.unit,
            samples,
            Contents(
                spec_hash=description.spec_hash,
                rows=rows,
                channels=sums.to_json() if samples else None,
                origin=TarOrigin(tar.source, None),
            ),
        )
    finish(store, description, range(3), ChannelSums())
    return store


@pytest.fixture
def store(tmp_path):
    return make_store(tmp_path / "store")


def test_a_store_of_tars_is_a_store(store):
    assert list(verify_shards(store)) == []
    reader = StoreReader(store)
    keys = [f"t{unit}/img.{i}" for unit in (0, 2) for i in (0, 1, 3)]
    assert (list(reader), len(reader)) == (keys, 6)
    assert [row.key for row in reader.rows()] == [
        f"t{u}/img.{i}" for u in range(3) for i in range(4)
    ]
    assert reader.metadata["latent_space"] == "toy#whitened"
    for key in keys:
        tensors = reader.tensors(key)
        assert torch.equal(tensors[f"{key}/latent"], storekit.latent(key[3:]))
        assert torch.equal(
            reader.frames(key, 1, 3, "latent_flip"), storekit.latent(key[3:]).flip(-1)[1:3]
        )
        assert torch.equal(
            pickle.loads(pickle.dumps(reader)).tensors(key)[f"{key}/latent"],
            tensors[f"{key}/latent"],
        )
    with pytest.raises(StoreError, match="read: truncated"):
        reader.tensors("t1/img.0")


def test_the_first_shard_may_be_empty(store):
    shard_path(store, 0, ".tar").write_bytes(END)
    assert StoreReader(store).metadata["unit"] == "2"


def test_one_tar_is_a_store_of_its_own(store, tmp_path):
    path = shard_path(store, 2, ".tar").rename(tmp_path / "some.tar")
    reader = StoreReader(path)
    keys = [f"t2/img.{i}" for i in (0, 1, 3)]
    assert (list(reader), len(reader), reader.units) == (keys, 3, [2])
    row = reader.row("t2/img.1")
    assert (row.source, row.original_size) == ("/data/img.1.jpg", (24, 16))
    assert (row.latent_shape, row.crop) == ((storekit.CHANNELS, 2, 3), None)
    assert torch.equal(reader.tensors("t2/img.1")["t2/img.1/latent"], storekit.latent("img.1"))
    (tmp_path / "pictures.tar").write_bytes(tar_bytes(("a.jpg", b"x")))
    with pytest.raises(StoreError, match="is not a shard of a latent store"):
        StoreReader(tmp_path / "pictures.tar")


def problems(store: Path) -> list[tuple[str, int | None]]:
    return [(problem.kind, problem.unit) for problem in verify_shards(store)]


def test_verify_finds_what_became_of_a_tar(store):
    path = shard_path(store, 2, ".tar")
    data = path.read_bytes()
    path.write_bytes(data[:-1024])
    assert problems(store) == [("size", 2), ("shard", 2)]
    bad = bytearray(data)
    bad[2000] ^= 1
    path.write_bytes(bad)
    assert problems(store) == [("digest", 2)]
    path.unlink()
    assert problems(store) == [("shard", 2)]
    path.write_bytes(data)
    assert problems(store) == []
    shutil.copy(path, path.with_suffix(".safetensors"))
    assert problems(store) == [("stray", None)]


def rewrite(store: Path, unit: int, old: str, new: str) -> None:
    path = store / "shards" / f"{unit:06d}.json"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_verify_compares_a_unit_with_its_tar(store):
    rewrite(store, 0, '\n  "source": "/data/t0.tar"', '\n  "source": "/data/t9.tar"')
    assert problems(store) == [("inputs", 0)]


def test_verify_wants_the_tar_named(store):
    rewrite(store, 1, '],\n  "source": "/data/t1.tar"', "]")
    assert ("inputs", 1) in problems(store)


def test_verify_wants_no_tar_named_where_there_are_none(tmp_path):
    storekit.run_job(tmp_path / "store", count=1, per_unit=1)
    assert problems(tmp_path / "store") == []
    rewrite(tmp_path / "store", 0, '"rows":', '"source": "/data/img/0000.jpg", "rows":')
    assert problems(tmp_path / "store") == [("inputs", 0)]


def test_verify_finds_keys_of_two_tars(store):
    rewrite(store, 1, '"key": "t1/img.0"', '"key": "t0/img.0"')
    found = [p for p in verify_shards(store) if p.kind == "duplicate"]
    assert [(p.unit, p.key) for p in found] == [(1, "t0/img.0")]


def test_verify_wants_the_format_of_the_manifest(store):
    rewrite(store, 1, "000001.tar", "000001.safetensors")
    assert ("record", 1) in problems(store)


def test_a_list_of_tars_is_whole(store):
    inputs = InputList.open(store / INPUTS)
    assert [inputs.count(unit) for unit in range(3)] == [1, 1, 1]


def test_a_store_of_tars_elsewhere(store, tmp_path):
    """In storage that knows no folders, no mapping and no seeking."""
    url = f"memory://{tmp_path.name}/store"
    fsspec.filesystem("memory").put(str(store), f"/{tmp_path.name}/store", recursive=True)
    reader, here = StoreReader(path_of(url)), StoreReader(store)
    assert list(reader) == list(here)
    for key in here:
        for name, value in here.tensors(key).items():
            assert torch.equal(reader.tensors(key)[name], value)
    assert torch.equal(reader.frames("t0/img.1", 1, 3), here.frames("t0/img.1", 1, 3))
    one = StoreReader(path_of(f"{url}/shards/000002.tar"))
    assert one.row("t2/img.1").original_size == (24, 16)
    with open_shard(path_of(f"{url}/shards/000002.tar")) as shard:
        assert isinstance(shard, TarShard)
        assert shard.others("t2/img.1") == sample("img.1").others
    with pytest.raises(StoreError, match="cannot be read"):
        open_shard(path_of(f"{url}/shards/000009.tar"))
