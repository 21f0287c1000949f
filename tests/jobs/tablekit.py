"""What the tests of tables share: tables of small pictures in all formats."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from jobkit import encode
from tarjobkit import picture

from latentcli.jobs.store.config import VerifyJob
from latentcli.jobs.store.verify import run_verify

PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
Row = Mapping[str, Any]


def rows(count: int, first: int = 0, bad_every: int = 0) -> list[dict[str, Any]]:
    """A picture and a caption of each row; some pictures are cut short."""
    found = []
    for number in range(first, first + count):
        data = picture(number)
        if bad_every and number % bad_every == bad_every - 1:
            data = data[: len(data) // 2]
        found.append({"image": {"bytes": data, "path": None}, "text": f"caption {number}"})
    return found


def arrow_table(values: Iterable[Row], **types: pa.DataType) -> pa.Table:
    """A table whose column `image`, if there is one, is of {bytes, path}."""
    values = list(values)
    names = list(dict.fromkeys(name for row in values for name in row))
    types = {"image": PICTURE} | types
    return pa.table(
        {name: pa.array([row.get(name) for row in values], types.get(name)) for name in names}
    )


def make_parquet(path: Path, values: Iterable[Row], **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(arrow_table(values), path, **options)
    return path


def make_arrow(path: Path, values: Iterable[Row], form: str = "stream", batch: int = 4) -> Path:
    """Arrow's stream format, as `datasets` writes it, or its file format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = arrow_table(values)
    new = pa.ipc.new_stream if form == "stream" else pa.ipc.new_file
    with new(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=batch)
    return path


def make_jsonl(path: Path, values: Iterable[Row]) -> Path:
    """One object a line; {bytes, path} becomes base64."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(plain(row))}\n" for row in values))
    return path


def plain(row: Row) -> dict[str, Any]:
    """A row whose picture is base64."""
    image = row.get("image")
    if not isinstance(image, dict):
        return dict(row)
    return {**row, "image": base64.b64encode(image["bytes"]).decode()}


MAKERS = {"parquet": make_parquet, "arrow": make_arrow, "jsonl": make_jsonl}
"""By the kind of source, which is the suffix too."""


def keyed(values, **columns):
    """Rows with more columns."""
    return [
        {**row, **{name: column[n] for name, column in columns.items()}}
        for n, row in enumerate(values)
    ]


def encode_tables(source, store, model, **options):
    """jobkit's settings; of tables, each is a shard."""
    return encode(source, store, model, **{"samples_per_shard": None} | options)


def verified(store: Path) -> bool:
    """Whether a store is sound, and its inputs give its latents again."""
    found = run_verify(VerifyJob(store=str(store), device="cpu"))
    assert found["problems"] == []
    return found["reencoded"]["samples"] > 0
