"""Writes the chunks of litData's streaming data sets, and their index.

A chunk is a count, the offsets of its items and the items, each of which has the sizes of its
values and then the values; little-endian, but for the header of a tensor, which is big-endian.

Source: litdata 0.2.76, streaming/writer.py and streaming/serializers.py; files of its writer are
the tests' reference.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentcli.core.errors import UsageError
from latentcli.exports.format import ExportFormat, ExportSample, Facts, File, Group, Setting
from latentcli.exports.open_formats import ANY, class_of, latents_of, state_advice
from latentcli.exports.serialise import DTYPES, raw_bytes

CODES = {torch.float32: 1, torch.float16: 9}
"""Numbers of dtypes in the header of a tensor. bfloat16 has one, but the writer cannot write it."""
BYTES = 1 << 26
"""Bytes of latents of a chunk, about those that the library's own tools choose."""
MOST = 1 << 32


def write(samples: Sequence[ExportSample], number: int, setting: Setting) -> Group:
    """`chunk-0-<number>.bin`, and its entry in the index."""
    data = chunk([values_of(sample, setting) for sample in samples])
    name = f"chunk-0-{number}.bin"
    about = {"chunk_bytes": len(data), "chunk_size": len(samples), "dim": None, "filename": name}
    return Group([File(name, data)], {"chunk": about, "sha256": hashlib.sha256(data).hexdigest()})


def values_of(sample: ExportSample, setting: Setting) -> dict[str, Any]:
    """The values of an item, in the order that they have in the file."""
    dtype = DTYPES[setting.dtype]
    values: dict[str, Any] = {"key": sample.key}
    values |= {name: one.to(dtype) for name, one in latents_of(sample, setting).items()}
    if setting.labelled:
        values["label"] = class_of(sample)
    return values | {"caption": sample.caption}


def kinds_of(setting: Setting) -> dict[str, str]:
    """What each value of an item is."""
    kinds = {"key": "str", "latent": "tensor"}
    if setting.mirrored:
        kinds["latent_flip"] = "tensor"
    if setting.labelled:
        kinds["label"] = "int"
    return kinds | {"caption": "str"}


def chunk(items: Sequence[Mapping[str, Any]]) -> bytes:
    """A chunk of some items; UsageError where it would not be below 4 GiB."""
    data = [packed(item) for item in items]
    offsets = np.cumsum([4 + 4 * (len(items) + 1), *map(len, data)], dtype=np.uint64)
    if offsets[-1] >= MOST:
        raise UsageError(
            f"A chunk of {len(items):,} samples would have {int(offsets[-1]):,} bytes, and litData"
            " allows less than 4 GiB: choose a smaller --samples-per-file."
        )
    count = np.uint32(len(items)).tobytes()
    return b"".join((count, offsets.astype(np.uint32).tobytes(), *data))


def packed(item: Mapping[str, Any]) -> bytes:
    """The bytes of an item: the size of each value, then the values."""
    parts = [ENCODERS[type(value)](value) for value in item.values()]
    return b"".join((np.array([*map(len, parts)], dtype=np.uint32).tobytes(), *parts))


def tensor_bytes(tensor: Tensor) -> bytes:
    """A tensor of any rank but one: dtype, rank and sizes, then the values."""
    head = struct.pack(f">{2 + tensor.ndim}I", CODES[tensor.dtype], tensor.ndim, *tensor.shape)
    return head + raw_bytes(tensor)


ENCODERS: dict[type, Callable[[Any], bytes]] = {
    str: str.encode,
    int: lambda value: int(value).to_bytes(8, "little", signed=True),
    Tensor: tensor_bytes,
}


def finish(facts: Sequence[Facts], setting: Setting) -> Sequence[File]:
    """index.json, with the chunks in their order."""
    chunks = [one["chunk"] for one in facts]
    digest = hashlib.sha256("".join(one["sha256"] for one in facts).encode())
    index = {
        "chunks": chunks,
        "config": configuration(
            kinds_of(setting), max((c["chunk_size"] for c in chunks), default=1)
        ),
        # The writer has the time here. Readers name their copy of a remote data set by it, so it
        # has to change with the data, and it need not be a time.
        "updated_at": str(int(digest.hexdigest()[:12], 16)),
    }
    return [File("index.json", json.dumps(index, sort_keys=True).encode())]


def configuration(kinds: Mapping[str, str], size: int) -> dict[str, Any]:
    """What the index says of all chunks; `size` is that of the largest, in items."""
    leaf: dict[str, Any] = {"type": None, "context": None, "children_spec": []}
    tree = {
        "type": "builtins.dict",
        "context": json.dumps(list(kinds)),
        "children_spec": [leaf] * len(kinds),
    }
    return {
        "chunk_bytes": None,
        "chunk_size": size,
        "compression": None,
        "compression_batch_size": None,
        "compression_level": None,
        "data_format": list(kinds.values()),
        "data_spec": json.dumps([1, tree]),
        "encryption": None,
        "ipc_compression": None,
        "item_loader": "PyTreeLoader",
        "types": dict(kinds),
    }


def advice(setting: Setting) -> Sequence[str]:
    """How the files are read."""
    names = ", ".join(kinds_of(setting))
    lines = [
        f'Read it with litdata.StreamingDataset("{setting.folder}"); an item is a dict of {names}.',
        state_advice(setting),
    ]
    if setting.shape is None:
        lines.append("Latents have several sizes: batches need a sampler that groups them.")
    return lines


FORMAT = ExportFormat(
    name="litdata",
    summary="litData: chunks of samples, and their index",
    variants=ANY,
    write=write,
    finish=finish,
    group=1000,
    group_bytes=BYTES,
    dtypes=("float16", "float32"),
    advice=advice,
)
