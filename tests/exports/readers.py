"""Reads MDS shards, litData chunks and tars, written from what is known of the formats alone."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import torch

Files = Mapping[str, bytes]

SHAPES = ("u1", "<u2", "<u4", "<u8")
TORCH = {1: torch.float32, 9: torch.float16}


def read_mds(files: Files) -> list[dict[str, Any]]:
    """The samples of an MDS folder; each file has to be as long as the index says."""
    rows = []
    for entry in json.loads(files["index.json"])["shards"]:
        data = files[entry["raw_data"]["basename"]]
        assert len(data) == entry["raw_data"]["bytes"]
        assert int.from_bytes(data[:4], "little") == entry["samples"]
        offsets = np.frombuffer(data, "<u4", entry["samples"] + 1, 4)
        names, kinds, sizes = (entry[f"column_{what}"] for what in ("names", "encodings", "sizes"))
        for begin, end in pairwise(offsets):
            sample, at, row = data[begin:end], 0, {}
            lengths = []
            for size in sizes:
                if not size:
                    size = int.from_bytes(sample[at : at + 4], "little")
                    at += 4
                lengths.append(size)
            for name, kind, length in zip(names, kinds, lengths, strict=True):
                row[name] = mds_value(kind, sample[at : at + length])
                at += length
            assert at == len(sample)
            rows.append(row)
        assert offsets[-1] == len(data)
    return rows


def mds_value(kind: str, data: bytes) -> Any:
    """A value of a column."""
    name, _, rest = kind.partition(":")
    if name == "ndarray":
        dtype, _, shape = rest.partition(":")
        if shape:
            return np.frombuffer(data, dtype).reshape([int(n) for n in shape.split(",")])
        ndim, code = data[0] >> 2, data[0] & 3
        dims = np.frombuffer(data, SHAPES[code], ndim, 1)
        return np.frombuffer(data[1 + dims.nbytes :], dtype).reshape(dims.astype(int))
    return {"str": bytes.decode, "bytes": bytes, "int": lambda b: struct.unpack("<q", b)[0]}[name](
        data
    )


def read_litdata(files: Files) -> list[dict[str, Any]]:
    """The items of a litData folder."""
    index = json.loads(files["index.json"])
    kinds = index["config"]["data_format"]
    names = json.loads(json.loads(index["config"]["data_spec"])[1]["context"])
    rows = []
    for entry in index["chunks"]:
        data = files[entry["filename"]]
        assert len(data) == entry["chunk_bytes"]
        (count,) = struct.unpack_from("<I", data)
        assert count == entry["chunk_size"] <= index["config"]["chunk_size"]
        offsets = struct.unpack_from(f"<{count + 1}I", data, 4)
        for begin, end in pairwise(offsets):
            item = data[begin:end]
            sizes = struct.unpack_from(f"<{len(kinds)}I", item)
            at, row = 4 * len(kinds), {}
            for name, kind, size in zip(names, kinds, sizes, strict=True):
                row[name] = litdata_value(kind, item[at : at + size])
                at += size
            assert at == len(item)
            rows.append(row)
    return rows


def litdata_value(kind: str, data: bytes) -> Any:
    """A value of an item."""
    if kind == "tensor":
        code, rank = struct.unpack_from(">II", data)
        shape = struct.unpack_from(f">{rank}I", data, 8)
        values = np.frombuffer(data[8 + 4 * rank :], {1: "<f4", 9: "<f2"}[code])
        return torch.from_numpy(values.copy()).reshape(shape)
    return data.decode() if kind == "str" else int.from_bytes(data, "little", signed=True)


def members(tar: bytes) -> Iterator[tuple[str, bytes, bytes]]:
    """(name, header, data) of each member of a plain ustar."""
    at = 0
    while tar[at : at + 512].strip(b"\0"):
        header = tar[at : at + 512]
        name, prefix = (header[a:b].rstrip(b"\0").decode() for a, b in ((0, 100), (345, 500)))
        size = int(header[124:136].strip(b"\0 "), 8)
        at += 512
        yield (f"{prefix}/{name}" if prefix else name), header, tar[at : at + size]
        at += -(-size // 512) * 512
