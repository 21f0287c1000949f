"""FastVideo: the rows and the schema of its own writer, but for the text that no store has."""

from __future__ import annotations

import io

import numpy as np
import pytest
from goldens import golden, sample, setting

from latentcli.exports.fastvideo import FORMAT

pq = pytest.importorskip("pyarrow.parquet")
TEXT = ("text_embedding_bytes", "text_embedding_shape", "text_embedding_dtype")


@pytest.mark.shared
def test_the_trainers_own_rows(shared):
    _, inputs, files = golden(shared, "fastvideo")
    theirs = [pq.read_table(io.BytesIO(data)) for data in files.values()]
    rows = sorted((r for table in theirs for r in table.to_pylist()), key=lambda r: r["id"])
    samples = [
        sample(latent[:, 0], row["id"], caption=row["caption"], original_size=(64, 64))
        for latent, row in zip(inputs["latent"], rows, strict=True)
    ]
    group = FORMAT.write(samples, 0, setting(FORMAT, "t2v"))
    ((path, data),) = group.files
    ours = pq.read_table(io.BytesIO(data))
    assert path == next(iter(files))
    assert ours.schema == theirs[0].schema
    for row, other in zip(ours.to_pylist(), rows, strict=True):
        assert row == other | dict(zip(TEXT, (b"", [], ""), strict=True))
    found = np.frombuffer(ours["vae_latent_bytes"][0].as_py(), np.float32).reshape(4, 1, 3, 2)
    np.testing.assert_array_equal(found, inputs["latent"][0].numpy())
    assert pq.read_metadata(io.BytesIO(data)).row_group(0).column(0).compression == "ZSTD"


def test_the_user_is_told_that_text_is_missing():
    lines = " ".join(FORMAT.advice(setting(FORMAT, "t2v")))
    assert "cannot be trained on yet" in lines and "text_embedding_bytes" in lines
