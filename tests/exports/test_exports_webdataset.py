"""WebDataset tars: the members, deterministic headers, and what three readers make of them."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import replace

import numpy as np
import pytest
import torch
import webdataset
from goldens import sample
from hypothesis import given, settings
from hypothesis import strategies as st
from readers import members
from rows import CAPTIONS, ROWS, class_in, rows_of, whole

from latentcli.core.member_names import key_of_member
from latentcli.exports.webdataset import FORMAT, Tar

KEYS = [
    "a",
    "a.b",
    "a%2Eb",
    "dir.1/x.tar",
    "__x__/.hidden",
    "Ünïcode/猫.1",
    "deep/" * 30 + "x" * 90,
]


def read(tar):
    """The members of each sample, by its key, as they were named."""
    found = {}
    for name, header, data in members(tar):
        assert header[257:265] == b"ustar\x0000" and header[136:148].strip(b"\0 0") == b""
        key, field = key_of_member(name)
        found.setdefault(key, {})[field] = data
    return found


@settings(deadline=None, max_examples=40)
@given(rows=ROWS, per_file=st.integers(1, 4), dtype=st.sampled_from(FORMAT.dtypes))
def test_what_is_read_back(rows, per_file, dtype):
    samples, one = rows_of(FORMAT, rows, dtype=dtype)
    files = whole(FORMAT, samples, one, per_file)
    assert [*files] == [f"shard-{i:06d}.tar" for i in range(-(-len(samples) // per_file))]
    found = {}
    for data in files.values():
        assert len(data) % 512 == 0 and data.endswith(bytes(1024))
        found |= read(data)
    assert [*found] == [it.key for it in samples]
    for it in samples:
        row = found[it.key]
        latent = np.load(io.BytesIO(row["npy"]))
        assert latent.dtype == dtype
        np.testing.assert_array_equal(latent, it.latent.numpy().astype(dtype))
        assert row["txt"].decode() == it.caption
        assert (int(row["cls"]) if "cls" in row else None) == class_in(it, one)
        assert ("flip.npy" in row) == one.mirrored
        about = json.loads(row["json"])
        assert about["key"] == it.key and about["crop"] == [*it.crop]
        assert about["original_size"] == [*it.original_size]
        assert about["latent_space"] == f"{one.space}#{one.state}"


def test_the_json_has_all_fields_and_the_name_of_the_class():
    (it,), one = rows_of(FORMAT, 1, labelled=True)
    it = replace(it, fields={"caption": "c", "score": 0.5, "tags": ["é"], "key": "another"})
    (data,) = whole(FORMAT, [it], replace(one, labels=("cats", "dogs")), 1).values()
    about = json.loads(read(data)[it.key]["json"])
    assert about["score"] == 0.5 and about["tags"] == ["é"] and about["caption"] == "c"
    assert (about["key"], about["label"], about["class"]) == (it.key, 0, "cats")


def test_webdatasets_own_reader_joins_the_members_of_each_sample(tmp_path):
    """Its keys are those that ours are escaped to, with dots, slashes and hidden names in them."""
    latent = torch.arange(24.0).reshape(4, 3, 2)
    samples = [sample(latent + i, key, caption=CAPTIONS[i]) for i, key in enumerate(KEYS)]
    _, one = rows_of(FORMAT, 1, labelled=True)
    for path, data in whole(FORMAT, samples, one, 4).items():
        (tmp_path / path).write_bytes(data)
    urls = [str(path) for path in sorted(tmp_path.glob("*.tar"))]
    found = list(webdataset.WebDataset(urls, shardshuffle=False, empty_check=False).decode())
    assert [key_of_member(f"{row['__key__']}.npy")[0] for row in found] == KEYS
    for it, row in zip(samples, found, strict=True):
        assert {key for key in row if key[0] != "_"} == {"npy", "txt", "cls", "json"}
        np.testing.assert_array_equal(row["npy"], it.latent.half().numpy())
        assert row["txt"] == it.caption and row["cls"] == -1 and row["json"]["key"] == it.key


def test_hugging_faces_reader(tmp_path):
    datasets = pytest.importorskip("datasets")
    samples, one = rows_of(FORMAT, 6, same_size=True, labelled=True, mirrored=True)
    for path, data in whole(FORMAT, samples, one, 3).items():
        (tmp_path / path).write_bytes(data)
    found = datasets.load_dataset(
        "webdataset",
        data_files=sorted(map(str, tmp_path.glob("*.tar"))),
        split="train",
        cache_dir=str(tmp_path / "cache"),
    )
    assert len(found) == 6
    for it, row in zip(samples, found, strict=True):
        np.testing.assert_array_equal(row["npy"], it.latent.half().numpy())
        np.testing.assert_array_equal(row["flip.npy"], it.mirrored.half().numpy())
        assert row["txt"] == it.caption and row["json"]["key"] == it.key


def test_headers_say_nothing_of_the_machine():
    tar = Tar()
    offsets = [tar.add(name, b"x" * 700) for name in ("é/a.npy", "d/" * 60 + "b.npy", "n" * 200)]
    data = tar.whole()
    assert [data[at : at + 700] for at in offsets] == [b"x" * 700] * 3
    with tarfile.open(fileobj=io.BytesIO(data)) as found:
        rows = found.getmembers()
    assert [row.name for row in rows] == ["é/a.npy", "d/" * 60 + "b.npy", "n" * 200]
    assert {(row.mtime, row.uid, row.gid, row.uname, row.gname, row.mode) for row in rows} == {
        (0, 0, 0, "", "", 0o644)
    }
