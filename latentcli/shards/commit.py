"""A unit's tensors and rows in; its shard, and then its commit record, in the store out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from latentcli.core.errors import StoreError
from latentcli.core.types import InputRow, Row
from latentcli.shards.documents import field, load_object, pretty
from latentcli.shards.inputs import InputList
from latentcli.shards.layout import record_path, shard_name, shard_path
from latentcli.shards.rows import row_from_json, row_to_json
from latentcli.shards.write import Pieces, atomic_write, sync_folder, write_error, write_safetensors

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
    """One per input, in the order of the input list."""

    def to_json(self) -> dict[str, Any]:
        """Plain values, in the order of the fields."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return values | {"rows": [row_to_json(row) for row in self.rows]}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """The record; ValueError says what is wrong with the document."""
        values = {name: field(document, name, *kinds) for name, kinds in _FIELDS.items()}
        record = cls(**values | {"rows": tuple(map(row_from_json, values["rows"]))})
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


_FIELDS: dict[str, tuple[type | None, ...]] = {
    "unit": (int,),
    "spec_hash": (str,),
    "shard": (str,),
    "bytes": (int,),
    "sha256": (str,),
    "inputs": (int,),
    "encoded": (int,),
    "failed": (int,),
    "channels": (dict, None),
    "rows": (list,),
}


def commit_unit(
    store: Path,
    unit: int,
    tensors: Mapping[str, Tensor | Pieces],
    metadata: Mapping[str, str],
    *,
    spec_hash: str,
    rows: Sequence[Row],
    channels: Mapping[str, Any] | None = None,
) -> CommitRecord:
    """Writes the shard, then the commit record, and returns the record.

    Tensors are named `<key>/<part>` and are those of the rows whose status is ok: ValueError
    where they are not. A unit without tensors has a shard too. StoreError as `atomic_write`.
    """
    _check_tensors(tensors, rows)
    path = record_path(store, unit)
    drop_record(store, unit)
    digest = write_safetensors(shard_path(store, unit), tensors, metadata)
    encoded = sum(row.status == "ok" for row in rows)
    record = CommitRecord(
        unit=unit,
        spec_hash=spec_hash,
        shard=shard_name(unit),
        bytes=digest.bytes,
        sha256=digest.sha256,
        inputs=len(rows),
        encoded=encoded,
        failed=len(rows) - encoded,
        channels=channels,
        rows=tuple(rows),
    )
    atomic_write(path, [pretty(record.to_json()).encode() + b"\n"])
    return record


def _check_tensors(tensors: Mapping[str, object], rows: Sequence[Row]) -> None:
    keys = [row.key for row in rows]
    if len(set(keys)) != len(keys):
        raise ValueError("a key has two rows in one unit")
    named = {name.rpartition("/")[0] for name in tensors}
    encoded = {row.key for row in rows if row.status == "ok"}
    if named != encoded:
        odd = sorted(named ^ encoded)[:5]
        raise ValueError(f"tensors and encoded rows do not go together: {odd}")


def drop_record(store: Path, unit: int) -> None:
    """Takes a unit back: it is to be done again. A record that is not there is fine.

    A record must never stand beside a shard that it does not describe, not even for a moment.
    """
    path = record_path(store, unit)
    try:
        path.unlink()
        sync_folder(path.parent)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise write_error(path, error) from error


def read_record(store: Path, unit: int) -> CommitRecord:
    """A unit's commit record; StoreError names the file and what is wrong with it."""
    path = record_path(store, unit)
    document = load_object(path)
    try:
        record = CommitRecord.from_json(document)
    except ValueError as error:
        raise StoreError(f"{path} is damaged: {error}.") from error
    if record.unit != unit or record.shard != shard_name(unit):
        raise StoreError(
            f"{path} is damaged: it is the record of unit {record.unit} and {record.shard}."
        )
    return record


def done_units(store: Path, spec_hash: str, inputs: InputList) -> set[int]:
    """Units that need no more work.

    Their commit record is sound, names this spec and lists exactly their inputs, and their shard
    has the recorded size. The digest is not read again: that is for `verify_shards`.
    """
    units = range(inputs.units)
    return {unit for unit in units if _is_done(store, unit, spec_hash, inputs.rows(unit))}


def _is_done(store: Path, unit: int, spec_hash: str, inputs: Sequence[InputRow]) -> bool:
    try:
        record = read_record(store, unit)
        size = shard_path(store, unit).stat().st_size
    except (StoreError, OSError):
        return False
    listed = [(row.key, row.source) for row in record.rows]
    expected = [(row.key, row.source) for row in inputs]
    return record.spec_hash == spec_hash and size == record.bytes and listed == expected
