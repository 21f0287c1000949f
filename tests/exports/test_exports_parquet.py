"""Parquet of Hugging Face's datasets: a file of its writer by values and schema, and its reader."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import torch
from goldens import golden, sample
from hypothesis import given, settings
from hypothesis import strategies as st
from rows import ROWS, rows_of, whole

from latentcli.core.errors import UsageError
from latentcli.exports import parquet
from latentcli.exports.parquet import FORMAT

pq = pytest.importorskip("pyarrow.parquet")


def tables(files):
    """All rows of all files, as values of Python."""
    return [row for data in files.values() for row in pq.read_table(io.BytesIO(data)).to_pylist()]


@pytest.mark.shared
def test_the_librarys_own_file(shared):
    meta, inputs, files = golden(shared, "hf_parquet")
    theirs = pq.read_table(io.BytesIO(files["data-00000.parquet"]))
    rows = theirs.to_pylist()
    samples = [
        sample(
            latent,
            row["key"],
            caption=row["caption"],
            original_size=(row["width"], row["height"]),
        )
        for latent, row in zip(inputs["latent"], rows, strict=True)
    ]
    _, one = rows_of(FORMAT, 1, same_size=True, dtype="float32")
    files = whole(FORMAT, samples, one, 5)
    assert [*files] == ["data-00000.parquet"]
    ours = pq.read_table(io.BytesIO(files["data-00000.parquet"]))
    features = json.loads(ours.schema.metadata[b"huggingface"])["info"]["features"]
    # Ours has two columns more.
    more = {"resized_size", "crop"}
    assert {name: features[name] for name in features.keys() - more} == meta["huggingface"]["info"][
        "features"
    ]
    kept = [name for name in ours.column_names if name not in more]
    assert kept == theirs.column_names
    assert ours.select(kept).to_pylist() == rows
    for name in kept:
        assert storage(ours.schema.field(name).type) == storage(theirs.schema.field(name).type)


def storage(kind):
    """A type without what datasets calls it."""
    return getattr(kind, "storage_type", kind)


@settings(deadline=None, max_examples=30)
@given(rows=ROWS, per_file=st.integers(1, 4), dtype=st.sampled_from(FORMAT.dtypes))
def test_what_is_read_back(rows, per_file, dtype):
    samples, one = rows_of(FORMAT, rows, dtype=dtype)
    found = tables(whole(FORMAT, samples, one, per_file))
    assert [row["key"] for row in found] == [it.key for it in samples]
    for row, it in zip(found, samples, strict=True):
        np.testing.assert_array_equal(array_of(row, "latent"), it.latent.numpy().astype(dtype))
        if one.mirrored:
            flip = array_of(row, "latent_flip")
            np.testing.assert_array_equal(flip, it.mirrored.numpy().astype(dtype))
        assert row["caption"] == it.caption and row["crop"] == [*it.crop]
        assert (row["width"], row["height"]) == it.original_size
        assert ("label" in row) == one.labelled and row.get("label") == it.label


def array_of(row, name):
    """A latent of nested lists, or of bytes."""
    if name in row:
        return np.array(row[name])
    dtype, shape = row[f"{name}_dtype"], row[f"{name}_shape"]
    return np.frombuffer(row[f"{name}_bytes"], dtype).reshape(shape)


@pytest.mark.parametrize("dtype", FORMAT.dtypes)
def test_load_dataset_gives_arrays_of_one_size(dtype, tmp_path):
    datasets = pytest.importorskip("datasets")
    samples, one = rows_of(
        FORMAT, 7, same_size=True, labelled=True, dtype=dtype, labels=("a", "b", "c")
    )
    found = loaded(datasets, whole(FORMAT, samples, one, 3), tmp_path)
    assert found.features["label"].names == ["a", "b", "c"]
    assert found.features["latent"].shape == (4, 3, 2)
    for it, row in zip(samples, found.with_format("torch"), strict=True):
        assert row["latent"].shape == (4, 3, 2)
        assert torch.equal(row["latent"].float(), it.latent.to(getattr(torch, dtype)).float())
        assert row["crop"].tolist() == [*it.crop]
        assert row["caption"] == it.caption


def test_load_dataset_gives_bytes_of_several_sizes(tmp_path):
    datasets = pytest.importorskip("datasets")
    samples, one = rows_of(FORMAT, 7, mirrored=True)
    found = loaded(datasets, whole(FORMAT, samples, one, 3), tmp_path)
    for it, row in zip(samples, found, strict=True):
        np.testing.assert_array_equal(array_of(row, "latent"), it.latent.half().numpy())
        np.testing.assert_array_equal(array_of(row, "latent_flip"), it.mirrored.half().numpy())


def loaded(datasets, files, folder):
    """What load_dataset makes of files."""
    for path, data in files.items():
        (folder / path).write_bytes(data)
    return datasets.load_dataset(
        "parquet",
        data_files=sorted(map(str, folder.glob("*.parquet"))),
        split="train",
        cache_dir=str(folder / "cache"),
    )


def test_equal_samples_give_equal_bytes():
    samples, one = rows_of(FORMAT, 5)
    assert whole(FORMAT, samples, one, 2) == whole(FORMAT, samples, one, 2)


def test_without_pyarrow_a_user_is_told_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    _, one = rows_of(FORMAT, 1)
    with pytest.raises(UsageError, match=r"pip install 'latentcli\[tables\]'"):
        parquet.check(one)
