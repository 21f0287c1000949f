"""MDS: the files of MosaicML's own writer, byte for byte, and what its reader makes of ours."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from goldens import golden, sample, setting
from harness.consumers import mosaic
from hypothesis import given, settings
from hypothesis import strategies as st
from readers import read_mds
from rows import ROWS, rows_of, whole

from latentcli.core.errors import StoreError, UsageError
from latentcli.exports import mds
from latentcli.exports.mds import FORMAT, shard


@pytest.mark.shared
def test_the_librarys_own_files_of_arrays(shared, monkeypatch):
    meta, inputs, files = golden(shared, "mds_ndarray")
    monkeypatch.setattr(mds, "LIMIT", int(meta["options"]["size_limit"]))
    rows = [
        sample(latent, row["key"], caption=row["caption"])
        for latent, row in zip(inputs["latent"], meta["rows"], strict=True)
    ]
    one = setting(FORMAT, "any", channels=8, shape=(3, 2), dtype="float16")
    assert mds.columns_of(one) == meta["columns"]
    assert whole(FORMAT, rows, one, per_file=1) == files


@pytest.mark.shared
def test_the_librarys_own_files_of_bare_bytes(shared):
    meta, inputs, files = golden(shared, "mds_diffusion")
    theirs = read_mds(files)
    rows = [
        {
            "caption": row["caption"],
            "latents_256": mds.half_bytes(sample(latent, "a")),
            # The picture was too small for the larger size.
            "latents_512": theirs[i]["latents_512"],
        }
        for i, (latent, row) in enumerate(zip(inputs["latent"], meta["rows"], strict=True))
    ]
    data = shard(meta["columns"], rows, int(meta["options"]["size_limit"]))
    assert data == files["shard.00000.mds"]


@settings(deadline=None, max_examples=40)
@given(rows=ROWS, per_file=st.integers(1, 4), dtype=st.sampled_from(FORMAT.dtypes))
def test_what_is_read_back(rows, per_file, dtype):
    samples, one = rows_of(FORMAT, rows, dtype=dtype, bytes_column="latents_x")
    found = read_mds(whole(FORMAT, samples, one, per_file))
    assert [row["key"] for row in found] == [it.key for it in samples]
    for row, it in zip(found, samples, strict=True):
        assert row["latent"].dtype == dtype and row["caption"] == it.caption
        np.testing.assert_array_equal(row["latent"], it.latent.numpy().astype(dtype))
        bare = np.frombuffer(row["latents_x"], np.float16).reshape(it.latent.shape)
        np.testing.assert_array_equal(bare, it.latent.half().numpy())
        if one.mirrored:
            np.testing.assert_array_equal(row["latent_flip"], it.mirrored.numpy().astype(dtype))
        assert row.get("label") == (
            (-1 if it.label is None else it.label) if one.labelled else None
        )


@pytest.mark.parametrize("same_size", [True, False])
def test_mosaicmls_reader(same_size, tmp_path):
    local = mosaic("streaming.base.local")
    samples, one = rows_of(FORMAT, 7, same_size=same_size, labelled=True, mirrored=True)
    for path, data in whole(FORMAT, samples, one, 3).items():
        (tmp_path / path).write_bytes(data)
    found = local.LocalDataset(str(tmp_path))
    assert len(found) == 7
    for it, row in zip(samples, (found[i] for i in range(7)), strict=True):
        assert row.keys() == {"key", "caption", "latent", "latent_flip", "label"}
        assert (row["key"], row["caption"]) == (it.key, it.caption)
        assert row["label"] == (-1 if it.label is None else it.label)
        np.testing.assert_array_equal(row["latent"], it.latent.half().numpy())
        np.testing.assert_array_equal(row["latent_flip"], it.mirrored.half().numpy())


def test_mosaicmls_streaming_reader(tmp_path):
    dataset = mosaic("streaming.base.dataset")
    samples, one = rows_of(FORMAT, 9, same_size=True)
    for path, data in whole(FORMAT, samples, one, 4).items():
        (tmp_path / path).write_bytes(data)
    found = dataset.StreamingDataset(local=str(tmp_path), batch_size=1, shuffle=False)
    rows = {row["key"]: row["latent"] for row in found}
    assert len(rows) == 9
    for it in samples:
        np.testing.assert_array_equal(rows[it.key], it.latent.half().numpy())


def test_what_float16_cannot_hold_is_refused():
    one = setting(FORMAT, "any", dtype="float32", bytes_column="latents_256")
    large = sample(torch.full((4, 2, 2), 70000.0), "big picture")
    with pytest.raises(StoreError, match=r"'big picture'.*float16"):
        FORMAT.write([large], 0, one)


@pytest.mark.parametrize("name", ["latent", "key", "label"])
def test_a_column_that_is_taken(name):
    with pytest.raises(UsageError, match=f"'{name}', which is already a column"):
        FORMAT.check(setting(FORMAT, "any", bytes_column=name))


def test_a_shard_of_4_gib_is_refused(monkeypatch):
    monkeypatch.setattr(mds, "MOST", 600)
    samples, one = rows_of(FORMAT, 9, same_size=True)
    with pytest.raises(UsageError, match="choose a smaller --samples-per-file"):
        FORMAT.write(samples, 0, one)
