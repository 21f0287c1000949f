"""litData: the chunks of its own writer, byte for byte, and what its reader makes of ours."""

from __future__ import annotations

import json

import pytest
import torch
from goldens import golden, sample, setting
from harness.consumers import consumer
from hypothesis import given, settings
from hypothesis import strategies as st
from readers import read_litdata
from rows import ROWS, rows_of, whole

from latentcli.core.errors import UsageError
from latentcli.exports import litdata
from latentcli.exports.litdata import FORMAT


@pytest.mark.shared
def test_the_librarys_own_files(shared):
    meta, inputs, files = golden(shared, "litdata")
    rows = [
        sample(latent, row["key"], caption=row["caption"], label=row["label"])
        for latent, row in zip(inputs["latent"], meta["rows"], strict=True)
    ]
    one = setting(FORMAT, "any", dtype="float16", labelled=True)
    ours = whole(FORMAT, rows, one, meta["chunk_size"])
    mine, theirs = (json.loads(them.pop("index.json")) for them in (ours, files))
    assert ours == files
    assert mine.pop("updated_at").isdigit() and theirs.pop("updated_at")
    assert mine == theirs


@settings(deadline=None, max_examples=40)
@given(rows=ROWS, per_file=st.integers(1, 4), dtype=st.sampled_from(FORMAT.dtypes))
def test_what_is_read_back(rows, per_file, dtype):
    samples, one = rows_of(FORMAT, rows, dtype=dtype)
    found = read_litdata(whole(FORMAT, samples, one, per_file))
    assert [row["key"] for row in found] == [it.key for it in samples]
    for row, it in zip(found, samples, strict=True):
        assert row["caption"] == it.caption
        assert torch.equal(row["latent"], it.latent.to(getattr(torch, dtype)))
        if one.mirrored:
            assert torch.equal(row["latent_flip"], it.mirrored.to(getattr(torch, dtype)))
        assert row.get("label") == (
            (-1 if it.label is None else it.label) if one.labelled else None
        )


def test_the_index_changes_with_the_data_alone():
    samples, one = rows_of(FORMAT, 4)
    first = whole(FORMAT, samples, one, 2)
    assert whole(FORMAT, samples, one, 2) == first
    changed = [*samples[:-1], sample(samples[-1].latent + 1, samples[-1].key)]
    other = whole(FORMAT, changed, one, 2)
    indices = [json.loads(files["index.json"]) for files in (first, other)]
    assert indices[0]["updated_at"] != indices[1]["updated_at"]


@pytest.mark.parametrize("like", [{"same_size": True}, {"labelled": True, "mirrored": True}])
def test_litdatas_reader(like, tmp_path, monkeypatch):
    library = consumer("litdata")
    samples, one = rows_of(FORMAT, 7, **like)
    folder = tmp_path / "set"
    folder.mkdir()
    for path, data in whole(FORMAT, samples, one, 3).items():
        (folder / path).write_bytes(data)
    found = library.StreamingDataset(str(folder), shuffle=False)
    assert len(found) == 7
    for it, row in zip(samples, found, strict=True):
        assert [*row] == [*litdata.kinds_of(one)]
        assert (row["key"], row["caption"]) == (it.key, it.caption)
        assert torch.equal(row["latent"], it.latent.half())
        if one.labelled:
            assert row["label"] == (-1 if it.label is None else it.label)
            assert torch.equal(row["latent_flip"], it.mirrored.half())


def test_a_chunk_of_4_gib_is_refused(monkeypatch):
    monkeypatch.setattr(litdata, "MOST", 600)
    samples, one = rows_of(FORMAT, 9, same_size=True)
    with pytest.raises(UsageError, match="choose a smaller --samples-per-file"):
        FORMAT.write(samples, 0, one)
