"""Writes the shards of MosaicML's streaming data sets (MDS), and their index.

A shard is a count, the offsets of its samples, its configuration as JSON, and the samples, each of
which has the sizes of its columns and then the columns by name; all little-endian.

Source: mosaicml-streaming 0.13.0, streaming/base/format/mds; files of its writer are the tests'
reference.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from latentcli.core.errors import UsageError
from latentcli.exports.format import ExportFormat, ExportSample, Facts, File, Group, Setting
from latentcli.exports.open_formats import (
    ANY,
    class_of,
    half_bytes,
    latents_of,
    state_advice,
    stored,
)
from latentcli.exports.serialise import Array

LIMIT = 1 << 26
"""Bytes that the writer's own shards have at most; ours are cut by samples."""
MOST = 1 << 32
"""Offsets have four bytes."""
SIZES = {"int": 8}
"""Bytes of encodings that always have as many; those of others stand before each value."""


def write(samples: Sequence[ExportSample], number: int, setting: Setting) -> Group:
    """`shard.<number>.mds`, and its entry in the index."""
    columns = columns_of(setting)
    values = [values_of(sample, setting) for sample in samples]
    name = f"shard.{number:05d}.mds"
    data = shard(columns, values, LIMIT)
    return Group(
        [File(name, data)], {"shard": entry(columns, name, len(data), len(samples), LIMIT)}
    )


def columns_of(setting: Setting) -> dict[str, str]:
    """The encoding of each column."""
    array = f"ndarray:{setting.dtype}"
    if setting.shape is not None:
        array += ":" + ",".join(map(str, (setting.channels, *setting.shape)))
    columns = {"key": "str", "caption": "str", "latent": array}
    if setting.mirrored:
        columns["latent_flip"] = array
    if setting.labelled:
        columns["label"] = "int"
    if setting.bytes_column:
        columns[setting.bytes_column] = "bytes"
    return columns


def values_of(sample: ExportSample, setting: Setting) -> dict[str, Any]:
    """The value of each column; StoreError where bare bytes are wanted and float16 is too small."""
    values: dict[str, Any] = {"key": sample.key, "caption": sample.caption}
    values |= {name: stored(one, setting) for name, one in latents_of(sample, setting).items()}
    values["label"] = class_of(sample)
    if setting.bytes_column:
        values[setting.bytes_column] = half_bytes(sample)
    return values


def shard(columns: Mapping[str, str], rows: Sequence[Mapping[str, Any]], limit: int) -> bytes:
    """A whole shard of some rows; UsageError where it would not be below 4 GiB."""
    head = json.dumps(configuration(columns, limit), sort_keys=True).encode()
    data = [packed(columns, row) for row in rows]
    begin = 4 + 4 * (len(rows) + 1) + len(head)
    offsets = np.cumsum([begin, *map(len, data)], dtype=np.uint64)
    if offsets[-1] >= MOST:
        raise UsageError(
            f"A shard of {len(rows):,} samples would have {int(offsets[-1]):,} bytes, and MDS"
            " allows less than 4 GiB: choose a smaller --samples-per-file."
        )
    count = np.uint32(len(rows)).tobytes()
    return b"".join((count, offsets.astype(np.uint32).tobytes(), head, *data))


def packed(columns: Mapping[str, str], row: Mapping[str, Any]) -> bytes:
    """The bytes of a row: sizes of the columns that have different ones, then all columns."""
    sizes, parts = [], []
    for name, encoding in sorted(columns.items()):
        parts.append(encoded(encoding, row[name]))
        if size_of(encoding) is None:
            sizes.append(len(parts[-1]))
    return b"".join((np.array(sizes, dtype=np.uint32).tobytes(), *parts))


def encoded(encoding: str, value: Any) -> bytes:
    """A value of a column."""
    kind, _, rest = encoding.partition(":")
    data = ENCODERS[kind](value)
    if kind == "ndarray" and ":" not in rest:
        return extent(value) + data
    return data


ENCODERS: dict[str, Callable[[Any], bytes]] = {
    "str": str.encode,
    "bytes": bytes,
    "int": lambda value: np.int64(value).tobytes(),
    "ndarray": lambda value: np.ascontiguousarray(value).tobytes(),
}


def extent(array: Array) -> bytes:
    """The shape of an array, in whole numbers that are as small as they can be."""
    code = next(i for i in range(4) if max(array.shape) < 1 << (8 << i))
    shape = np.array(array.shape, dtype=f"<u{1 << code}")
    return bytes([array.ndim << 2 | code]) + shape.tobytes()


def size_of(encoding: str) -> int | None:
    """Bytes of each value; None where they differ."""
    parts = encoding.split(":")
    if len(parts) == 3:
        return prod(map(int, parts[2].split(","))) * np.dtype(parts[1]).itemsize
    return SIZES.get(encoding)


def configuration(columns: Mapping[str, str], limit: int) -> dict[str, Any]:
    """What a shard says of itself."""
    encodings = [encoding for _, encoding in sorted(columns.items())]
    return {
        "column_encodings": encodings,
        "column_names": sorted(columns),
        "column_sizes": [size_of(encoding) for encoding in encodings],
        "compression": None,
        "format": "mds",
        "hashes": [],
        "size_limit": limit,
        "version": 2,
    }


def entry(
    columns: Mapping[str, str], name: str, size: int, samples: int, limit: int
) -> dict[str, Any]:
    """What the index says of a shard."""
    return configuration(columns, limit) | {
        "raw_data": {"basename": name, "bytes": size, "hashes": {}},
        "samples": samples,
        "zip_data": None,
    }


def finish(facts: Sequence[Facts], setting: Setting) -> Sequence[File]:
    """index.json, with the shards in their order."""
    index = {"shards": [one["shard"] for one in facts], "version": 2}
    return [File("index.json", json.dumps(index, sort_keys=True).encode())]


def check(setting: Setting) -> None:
    """UsageError where the column of bare bytes has the name of another."""
    taken = ("key", "caption", "latent", "latent_flip", "label")
    if setting.bytes_column in taken:
        raise UsageError(
            f"--bytes-column is {setting.bytes_column!r}, which is already a column: choose"
            f" another name than {', '.join(taken)}, such as latents_512."
        )


def advice(setting: Setting) -> Sequence[str]:
    """How the files are read."""
    lines = [
        f'Read it with streaming.StreamingDataset(local="{setting.folder}", batch_size=N); columns'
        f" are {', '.join(columns_of(setting))}.",
        state_advice(setting),
    ]
    if setting.bytes_column and setting.shape is not None:
        shape = setting.channels, *setting.shape
        lines.append(
            f"{setting.bytes_column} holds bare float16: np.frombuffer(value, np.float16)"
            f".reshape{shape}."
        )
    if setting.shape is None:
        lines.append("Latents have several sizes: batches need a sampler that groups them.")
    return lines


FORMAT = ExportFormat(
    name="mds",
    summary="MosaicML streaming: shards of samples, and their index",
    variants=ANY,
    write=write,
    finish=finish,
    check=check,
    group=1000,
    group_bytes=LIMIT,
    dtypes=("float16", "float32"),
    has_bytes_column=True,
    advice=advice,
)
