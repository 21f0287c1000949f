"""Writes the Parquet files that FastVideo trains text-to-video models from.

A sample is a video of one frame. Its trainer needs the embedding of the caption as well, which no
store has: the columns are there and empty.

Source: FastVideo 2f3d4074, dataset/dataloader/record_schema.py, schema.py and parquet_io.py; files
of its writer are the tests' reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from latentcli.exports.format import ExportFormat, ExportSample, File, Group, Setting, Variant
from latentcli.exports.parquet import BYTES, check, load_pyarrow, parquet_bytes
from latentcli.exports.serialise import raw_bytes

VARIANTS = (
    Variant(
        name="t2v",
        spaces=("wan2.1",),
        state="whitened",
        suits="Wan 2.1 and other models on its video autoencoder",
    ),
)
COLUMNS = {
    "id": "string",
    "vae_latent_bytes": "binary",
    "vae_latent_shape": "list",
    "vae_latent_dtype": "string",
    "text_embedding_bytes": "binary",
    "text_embedding_shape": "list",
    "text_embedding_dtype": "string",
    "file_name": "string",
    "caption": "string",
    "media_type": "string",
    "width": "int64",
    "height": "int64",
    "num_frames": "int64",
    "duration_sec": "float64",
    "fps": "float64",
}


def write(samples: Sequence[ExportSample], number: int, setting: Setting) -> Group:
    """`worker_0/data_chunk_<number>.parquet`."""
    arrow = load_pyarrow()
    kinds = {
        name: arrow.list_(arrow.int64()) if kind == "list" else arrow.type_for_alias(kind)
        for name, kind in COLUMNS.items()
    }
    rows = [row_of(sample, setting) for sample in samples]
    table = arrow.Table.from_pylist(rows, schema=arrow.schema([*kinds.items()]))
    return Group([File(f"worker_0/data_chunk_{number}.parquet", parquet_bytes(table, 100, "zstd"))])


def row_of(sample: ExportSample, setting: Setting) -> dict[str, Any]:
    """The row of a sample; its latent is float32, as the trainer reads all bytes as that."""
    channels, h, w = sample.latent.shape
    return {
        "id": sample.key,
        "vae_latent_bytes": raw_bytes(sample.latent),
        "vae_latent_shape": [channels, 1, h, w],
        "vae_latent_dtype": "float32",
        "text_embedding_bytes": b"",
        "text_embedding_shape": [],
        "text_embedding_dtype": "",
        "file_name": sample.filename or sample.key,
        "caption": sample.caption,
        "media_type": "video",
        "width": w * setting.downscale,
        "height": h * setting.downscale,
        "num_frames": 1,
        "duration_sec": 0.0,
        "fps": 0.0,
    }


def advice(setting: Setting) -> Sequence[str]:
    """What is missing."""
    return (
        "These files cannot be trained on yet: text_embedding_bytes, _shape and _dtype are empty,"
        " which the trainer reads as zeros of a width that no model has. Fill them with the"
        " embeddings of the captions, float32 of [tokens, width], by the model's own text"
        " encoder.",
        "If you add files to the folder later, delete map_style_cache/file_info.pkl in it.",
    )


FORMAT = ExportFormat(
    name="fastvideo",
    summary="FastVideo: Parquet files of videos of one frame, without the text embeddings",
    variants=VARIANTS,
    write=write,
    check=check,
    group=1000,
    group_bytes=BYTES,
    needs=frozenset({"one_size", "text"}),
    advice=advice,
)
