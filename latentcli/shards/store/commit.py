"""Writes a unit's shard and then its commit record, which makes the unit done."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from latentcli.core.errors import StoreError
from latentcli.core.types import InputRow, Row
from latentcli.shards.layout import SUFFIXES, record_path, shard_name, shard_path
from latentcli.shards.storage.atomic_write import Bytes, atomic_write, sync_folder, writing
from latentcli.shards.storage.json_fields import from_object, to_object
from latentcli.shards.storage.json_files import load_object, pretty
from latentcli.shards.storage.paths import AnyPath
from latentcli.shards.tar.write import TarSample, tar_chunks
from latentcli.shards.tensors.write import Pieces, safetensors_parts

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class CommitRecord:
    """What a unit became. Its file is written last: a unit without one is not done."""

    unit: int
    spec_hash: str
    shard: str
    """File name of the shard, in the same folder."""
    bytes: int
    """Size of the shard."""
    sha256: str
    """Hexadecimal digest of the shard."""
    inputs: int
    encoded: int
    failed: int
    channels: Mapping[str, Any] | None
    """Running sums of the latents' channels, as their maker's JSON."""
    rows: tuple[Row, ...]
    """One per input, in the order of the input list; of a tar, one per sample in it."""
    source: str | None = None
    """The tar that the unit was made from; None where inputs are pictures or clips."""
    sha256_source: str | None = None
    """Hexadecimal digest of that tar."""

    def to_json(self) -> dict[str, Any]:
        """Plain values, in the order of the fields; a tar's are left out where there is none."""
        return to_object(self) | {"rows": [to_object(row) for row in self.rows]}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """The record; ValueError says what is wrong with the document."""
        record = from_object(cls, document)
        for row in record.rows:
            if row.status not in ("ok", "failed"):
                raise ValueError(f"status is {row.status!r}, expected ok or failed")
        encoded = sum(row.status == "ok" for row in record.rows)
        found = (len(record.rows), encoded, len(record.rows) - encoded)
        if found != (record.inputs, record.encoded, record.failed):
            raise ValueError(
                f"it counts {record.inputs} inputs, {record.encoded} encoded and {record.failed}"
                f" failed, but lists {found[0]}, {found[1]} and {found[2]}"
            )
        if len({row.key for row in record.rows}) != len(record.rows):
            raise ValueError("it lists a key twice")
        return record


@dataclass(frozen=True, slots=True)
class TarOrigin:
    """The tar that a unit is made from."""

    source: str
    sha256: str | None


def commit_unit(
    store: AnyPath,
    unit: int,
    tensors: Mapping[str, Tensor | Pieces],
    metadata: Mapping[str, str],
    *,
    spec_hash: str,
    rows: Sequence[Row],
    channels: Mapping[str, Any] | None = None,
    origin: TarOrigin | None = None,
) -> CommitRecord:
    """Writes a safetensors shard, then the commit record, and returns the record.

    Tensors are named `<key>/<part>` and are those of the rows whose status is ok: ValueError
    where they are not. A unit without tensors has a shard too. StoreError as `atomic_write`.
    """
    _check_names({name.rpartition("/")[0] for name in tensors}, rows)
    _, chunks = safetensors_parts(tensors, metadata)
    return _commit(store, unit, "safetensors", chunks, spec_hash, rows, channels, origin)


def commit_tar(
    store: AnyPath,
    unit: int,
    samples: Sequence[TarSample],
    *,
    spec_hash: str,
    rows: Sequence[Row],
    channels: Mapping[str, Any] | None = None,
    origin: TarOrigin | None = None,
) -> CommitRecord:
    """Writes a tar shard of samples, then the commit record; otherwise as `commit_unit`."""
    _check_names({sample.metadata["key"] for sample in samples}, rows)
    chunks = tar_chunks(samples)
    return _commit(store, unit, "webdataset", chunks, spec_hash, rows, channels, origin)


def _commit(
    store: AnyPath,
    unit: int,
    format: str,
    chunks: Iterable[Bytes],
    spec_hash: str,
    rows: Sequence[Row],
    channels: Mapping[str, Any] | None,
    origin: TarOrigin | None,
) -> CommitRecord:
    suffix = SUFFIXES[format]
    drop_record(store, unit)
    digest = atomic_write(shard_path(store, unit, suffix), chunks)
    encoded = sum(row.status == "ok" for row in rows)
    record = CommitRecord(
        unit=unit,
        spec_hash=spec_hash,
        shard=shard_name(unit, suffix),
        bytes=digest.bytes,
        sha256=digest.sha256,
        inputs=len(rows),
        encoded=encoded,
        failed=len(rows) - encoded,
        channels=channels,
        rows=tuple(rows),
        source=origin.source if origin else None,
        sha256_source=origin.sha256 if origin else None,
    )
    atomic_write(record_path(store, unit), [pretty(record.to_json()).encode() + b"\n"])
    return record


def _check_names(named: set[str], rows: Sequence[Row]) -> None:
    keys = [row.key for row in rows]
    if len(set(keys)) != len(keys):
        raise ValueError("a key has two rows in one unit")
    encoded = {row.key for row in rows if row.status == "ok"}
    if named != encoded:
        odd = sorted(named ^ encoded)[:5]
        raise ValueError(f"tensors and encoded rows do not go together: {odd}")


def drop_record(store: AnyPath, unit: int) -> None:
    """Takes a unit back: it is to be done again. A record that is not there is fine.

    A record must never stand beside a shard that it does not describe, not even for a moment.
    """
    path = record_path(store, unit)
    with writing(path), suppress(FileNotFoundError):
        path.unlink()
        if isinstance(path, Path):
            sync_folder(path.parent)


def read_record(store: AnyPath, unit: int) -> CommitRecord:
    """A unit's commit record; StoreError names the file and what is wrong with it."""
    path = record_path(store, unit)
    document = load_object(path)
    try:
        record = CommitRecord.from_json(document)
    except ValueError as error:
        raise StoreError(f"{path} is damaged: {error}.") from error
    names = {shard_name(unit, suffix) for suffix in SUFFIXES.values()}
    if record.unit != unit or record.shard not in names:
        raise StoreError(
            f"{path} is damaged: it is the record of unit {record.unit} and {record.shard}."
        )
    return record


def is_of(record: CommitRecord, inputs: Sequence[InputRow]) -> bool:
    """Whether a record lists exactly these inputs, or was made from the one tar that they are."""
    if record.source is not None:
        return [record.source] == [row.source for row in inputs]
    return len(record.rows) == len(inputs) and all(
        row.key == item.key and row.source == item.source
        for row, item in zip(record.rows, inputs, strict=True)
    )
