"""Writes Parquet files that Hugging Face's datasets reads, with latents as arrays of one size.

Where latents have several sizes, which a column of arrays cannot hold, a latent is three columns:
its bytes, its shape and its dtype.

Source: datasets 5.0.1, features/features.py; a file of its writer is the tests' reference.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from latentcli.core.errors import UsageError
from latentcli.exports.format import ExportFormat, ExportSample, File, Group, Setting
from latentcli.exports.open_formats import ANY, latents_of, state_advice, stored

BYTES = 1 << 27
"""Bytes of float32 latents of a file; the library's own files have at most some 500 MB."""
ROWS = 100
"""Rows of a group of the file, which readers take at once."""


def write(samples: Sequence[ExportSample], number: int, setting: Setting) -> Group:
    """`data-<number>.parquet`."""
    columns = {"key": [sample.key for sample in samples]}
    columns |= latent_columns(samples, setting)
    columns |= other_columns(samples, setting)
    features = features_of(setting)
    arrow = load_pyarrow()
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    schema = arrow.schema([arrow_field(*feature) for feature in features.items()], metadata)
    arrays = [
        values if isinstance(values, arrow.Array) else arrow.array(values, field.type)
        for field, values in ((field, columns[field.name]) for field in schema)
    ]
    table = arrow.Table.from_arrays(arrays, schema=schema)
    return Group([File(f"data-{number:05d}.parquet", parquet_bytes(table, ROWS))])


def parquet_bytes(table: Any, rows: int, compression: str = "snappy") -> bytes:
    """A whole file of a table."""
    arrow = load_pyarrow()
    sink = arrow.BufferOutputStream()
    arrow.parquet.write_table(table, sink, row_group_size=rows, compression=compression)
    return bytes(sink.getvalue())


def latent_columns(samples: Sequence[ExportSample], setting: Setting) -> dict[str, Any]:
    """Columns of the latents: nested lists where they have one size."""
    found: dict[str, Any] = {}
    for name in ("latent", "latent_flip")[: 1 + setting.mirrored]:
        arrays = [stored(latents_of(one, setting)[name], setting) for one in samples]
        if setting.shape is not None:
            found[name] = nested(arrays)
        else:
            found[f"{name}_bytes"] = [array.tobytes() for array in arrays]
            found[f"{name}_shape"] = [[*array.shape] for array in arrays]
            found[f"{name}_dtype"] = [setting.dtype] * len(arrays)
    return found


def nested(arrays: Sequence[Any]) -> Any:
    """Arrays [C, h, w] of one size as lists of lists of lists."""
    import numpy as np

    arrow = load_pyarrow()
    values = np.stack(arrays)
    found = arrow.array(values.reshape(-1))
    for size in values.shape[:0:-1]:
        offsets = np.arange(0, len(found) + 1, size, dtype=np.int32)
        found = arrow.ListArray.from_arrays(arrow.array(offsets), found)
    return found


def other_columns(samples: Sequence[ExportSample], setting: Setting) -> dict[str, Any]:
    """Columns of what else is known of a sample."""
    found: dict[str, Any] = {
        "width": [sample.original_size[0] for sample in samples],
        "height": [sample.original_size[1] for sample in samples],
        "resized_size": [[*sample.resized_size] for sample in samples],
        "crop": [[*sample.crop] for sample in samples],
    }
    if setting.labelled:
        found["label"] = [sample.label for sample in samples]
    return found | {"caption": [sample.caption for sample in samples]}


def features_of(setting: Setting) -> dict[str, Any]:
    """What datasets knows each column as, in their order."""
    found: dict[str, Any] = {"key": value("string")}
    for name in ("latent", "latent_flip")[: 1 + setting.mirrored]:
        if setting.shape is not None:
            shape = [setting.channels, *setting.shape]
            found[name] = {"shape": shape, "dtype": setting.dtype, "_type": "Array3D"}
        else:
            found[f"{name}_bytes"] = value("binary")
            found[f"{name}_shape"] = sequence("int64")
            found[f"{name}_dtype"] = value("string")
    found |= {"width": value("int64"), "height": value("int64")}
    found |= {"resized_size": sequence("int64"), "crop": sequence("int64")}
    if setting.labels:
        found["label"] = {"names": list(setting.labels), "_type": "ClassLabel"}
    elif setting.labelled:
        found["label"] = value("int64")
    return found | {"caption": value("string")}


def value(dtype: str) -> dict[str, Any]:
    """A feature of one value."""
    return {"dtype": dtype, "_type": "Value"}


def sequence(dtype: str) -> dict[str, Any]:
    """A feature of a list of values."""
    return {"feature": value(dtype), "_type": "Sequence"}


def arrow_field(name: str, feature: Mapping[str, Any]) -> Any:
    """The column of a feature."""
    arrow = load_pyarrow()
    kind = arrow.type_for_alias(inner(feature).get("dtype", "int64"))
    for _ in feature.get("shape", "1" if "feature" in feature else ""):
        kind = arrow.list_(kind)
    if "shape" not in feature:
        return arrow.field(name, kind)
    # What datasets has registered with Arrow, and gives arrays for in place of lists.
    about = {
        "ARROW:extension:name": f"datasets.features.features.{feature['_type']}ExtensionType",
        "ARROW:extension:metadata": json.dumps([feature["shape"], feature["dtype"]]),
    }
    return arrow.field(name, kind, metadata=about)


def inner(feature: Mapping[str, Any]) -> Mapping[str, Any]:
    """The feature of the values of a list, or of a value."""
    found: Mapping[str, Any] = feature.get("feature", feature)
    return found


def load_pyarrow() -> Any:
    """pyarrow, or a UsageError that says how to get it."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UsageError(
            f"To write Parquet files, pyarrow is needed and is not installed ({error}):"
            " pip install 'latentcli[tables]'"
        ) from error
    return pyarrow


def check(setting: Setting) -> None:
    """UsageError where pyarrow is not there."""
    load_pyarrow()


def advice(setting: Setting) -> Sequence[str]:
    """How the files are read."""
    lines = [
        f'Read it with datasets.load_dataset("parquet", data_files="{setting.folder}/*.parquet",'
        ' split="train").with_format("torch").',
        state_advice(setting),
    ]
    if setting.shape is None:
        lines.append(
            "Latents have several sizes, so each is bytes, shape and dtype:"
            " np.frombuffer(row['latent_bytes'], row['latent_dtype']).reshape(row['latent_shape'])."
        )
    if setting.dtype == "float16":
        lines.append("Not every reader of Parquet knows float16; datasets and pyarrow do.")
    return lines


FORMAT = ExportFormat(
    name="parquet",
    summary="Hugging Face datasets: Parquet files with a column of arrays",
    variants=ANY,
    write=write,
    check=check,
    group=2000,
    group_bytes=BYTES,
    dtypes=("float32", "float16"),
    advice=advice,
)
