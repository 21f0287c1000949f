"""Writes a unit's shard and then its commit record, which makes the unit done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Self

from latentcli.core.errors import StoreError
from latentcli.core.types import FILTERED, Row
from latentcli.shards.layout import (
    FIELDS,
    SHARDS,
    SUFFIXES,
    record_path,
    second_name,
    shard_name,
)
from latentcli.shards.storage.atomic_write import (
    Bytes,
    atomic_write,
    duplicate,
    sync_folder,
    writing,
)
from latentcli.shards.storage.json_fields import from_object, later, to_object
from latentcli.shards.storage.json_files import load_object, pretty
from latentcli.shards.storage.paths import AnyPath
from latentcli.shards.store.fields import write_fields
from latentcli.shards.store.roots import NO_ROOTS, Roots
from latentcli.shards.tar.write import TarSample, tar_chunks
from latentcli.shards.tensors.write import Pieces, safetensors_parts

if TYPE_CHECKING:
    from torch import Tensor


_STATUSES = ("ok", "failed", FILTERED)


@dataclass(frozen=True, slots=True)
class FieldsDigest:
    """The file that has the fields of a unit's samples."""

    file: str
    """Its name, in the same folder."""
    bytes: int
    sha256: str


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
    key: str | None = None
    """What the keys of its samples begin with, where they do."""
    fields: FieldsDigest | None = None
    """The captions and other fields of its samples; None where there are none."""
    filtered: int = later(0)
    """Inputs that a filter of the job refused."""
    nothing_to_encode: int | None = None
    """Samples of that tar that hold no picture (or clip), and have no rows."""

    def to_json(self) -> dict[str, Any]:
        """Plain values, in the order of the fields; a tar's are left out where there is none."""
        fields = {} if self.fields is None else {"fields": to_object(self.fields)}
        return to_object(self) | {"rows": [to_object(row) for row in self.rows]} | fields

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """The record; ValueError says what is wrong with the document."""
        record = from_object(cls, document)
        for row in record.rows:
            if row.status not in _STATUSES:
                raise ValueError(f"status is {row.status!r}, expected {' or '.join(_STATUSES)}")
        counts = counts_of(record.rows)
        if counts != {name: getattr(record, name) for name in counts}:
            told = ", ".join(f"{getattr(record, name)} {name}" for name in counts)
            found = ", ".join(map(str, counts.values()))
            raise ValueError(f"it counts {told}, but lists {found}")
        if len({row.key for row in record.rows}) != len(record.rows):
            raise ValueError("it lists a key twice")
        return record


def counts_of(rows: Sequence[Row]) -> dict[str, int]:
    """How many inputs there are, and how many of each status, as a record counts them."""
    found = Counter(row.status for row in rows)
    return {
        "inputs": len(rows),
        "encoded": found["ok"],
        "failed": found["failed"],
        FILTERED: found[FILTERED],
    }


@dataclass(frozen=True, slots=True)
class TarOrigin:
    """The tar that a unit is made from."""

    source: str
    sha256: str | None
    key: str | None = None
    """What the keys of its samples begin with, where they do."""
    nothing_to_encode: int = 0
    """Samples in it that hold no picture (or clip)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What is recorded of a unit beside its tensors."""

    spec_hash: str
    rows: Sequence[Row]
    channels: Mapping[str, Any] | None = None
    origin: TarOrigin | None = None
    fields: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By key of a sample: its caption and others, as JSON values."""
    roots: Roots = NO_ROOTS
    """What the sources are written relative to."""
    instead_of: CommitRecord | None = None
    """The unit as it is, where it is to be there until the new one is; else it is taken back
    first."""


def commit_unit(
    store: AnyPath,
    unit: int,
    tensors: Mapping[str, Tensor | Pieces],
    metadata: Mapping[str, str],
    contents: Contents,
) -> CommitRecord:
    """Writes a safetensors shard, then the commit record, and returns the record.

    Tensors are named `<key>/<part>` and are those of the rows whose status is ok: ValueError
    where they are not. A unit without tensors has a shard too. StoreError as `atomic_write`.
    """
    _check_names({name.rpartition("/")[0] for name in tensors}, contents.rows)
    _, chunks = safetensors_parts(tensors, metadata)
    return _commit(store, unit, "safetensors", chunks, contents)


def commit_tar(
    store: AnyPath, unit: int, samples: Sequence[TarSample], contents: Contents
) -> CommitRecord:
    """Writes a tar shard of samples, then the commit record; otherwise as `commit_unit`."""
    _check_names({sample.metadata["key"] for sample in samples}, contents.rows)
    return _commit(store, unit, "webdataset", tar_chunks(samples), contents)


def _commit(
    store: AnyPath, unit: int, format: str, chunks: Iterable[Bytes], contents: Contents
) -> CommitRecord:
    current, suffix = contents.instead_of, SUFFIXES[format]
    if current is None:
        drop_record(store, unit)
        if not contents.fields:
            delete_files(store, [shard_name(unit, FIELDS)])  # of what was here before
    shard = _free_name(unit, suffix, None if current is None else current.shard)
    digest = atomic_write(store / SHARDS / shard, chunks)
    rows, origin = contents.rows, contents.origin
    record = CommitRecord(
        unit=unit,
        spec_hash=contents.spec_hash,
        shard=shard,
        bytes=digest.bytes,
        sha256=digest.sha256,
        channels=contents.channels,
        rows=tuple(rows),
        source=origin.source if origin else None,
        sha256_source=origin.sha256 if origin else None,
        nothing_to_encode=(origin.nothing_to_encode or None) if origin else None,
        key=origin.key if origin else None,
        fields=_write_fields(store, unit, contents.fields, current),
        **counts_of(rows),
    )
    write_record(store, record, contents.roots)
    return record if current is None else settle_unit(store, record, contents.roots)


def _check_names(named: set[str], rows: Sequence[Row]) -> None:
    keys = [row.key for row in rows]
    if len(set(keys)) != len(keys):
        raise ValueError("a key has two rows in one unit")
    encoded = {row.key for row in rows if row.status == "ok"}
    if named != encoded:
        odd = sorted(named ^ encoded)[:5]
        raise ValueError(f"tensors and encoded rows do not go together: {odd}")


def write_record(store: AnyPath, record: CommitRecord, roots: Roots) -> None:
    """Writes a unit's commit record atomically; from then on the unit is what it says."""
    document = record.to_json()
    for told in (document, *document["rows"]):
        if "source" in told:
            told["source"] = roots.stored(told["source"])
    atomic_write(record_path(store, record.unit), [pretty(document).encode() + b"\n"])


def replace_fields(
    store: AnyPath,
    record: CommitRecord,
    fields: Mapping[str, Mapping[str, Any]],
    roots: Roots,
) -> CommitRecord:
    """Gives the samples of a unit other fields; its shard stays as it is."""
    written = _write_fields(store, record.unit, fields, record)
    record = replace(record, fields=written)
    write_record(store, record, roots)
    return settle_unit(store, record, roots)


def _write_fields(
    store: AnyPath,
    unit: int,
    fields: Mapping[str, Mapping[str, Any]],
    current: CommitRecord | None,
) -> FieldsDigest | None:
    taken = None if current is None or current.fields is None else current.fields.file
    name = _free_name(unit, FIELDS, taken)
    if not fields:
        if taken == shard_name(unit, FIELDS):
            # By its second name `settle` finds a file that no record will name any more.
            duplicate(store / SHARDS / taken, name)
        return None
    digest = write_fields(store / SHARDS / name, fields.items())
    return FieldsDigest(name, digest.bytes, digest.sha256)


def _free_name(unit: int, suffix: str, taken: str | None) -> str:
    """The usual name of a unit's file, or the second one where the usual one is taken."""
    usual = shard_name(unit, suffix)
    return second_name(unit, suffix) if taken == usual else usual


def settle_unit(store: AnyPath, record: CommitRecord, roots: Roots) -> CommitRecord:
    """Gives the files of a unit their usual names, and deletes what was in their place.

    At every instant the record names files that are there, and that are what it says.
    """
    settled, unit = record, record.unit
    suffix = PurePosixPath(record.shard).suffix
    if record.shard != shard_name(unit, suffix):
        duplicate(store / SHARDS / record.shard, shard_name(unit, suffix))
        settled = replace(settled, shard=shard_name(unit, suffix))
    if record.fields is not None and record.fields.file != shard_name(unit, FIELDS):
        duplicate(store / SHARDS / record.fields.file, shard_name(unit, FIELDS))
        settled = replace(settled, fields=replace(record.fields, file=shard_name(unit, FIELDS)))
    if settled != record:
        write_record(store, settled, roots)
    # The second names go last: by them `settle` finds a unit that is to be settled.
    left = [shard_name(unit, FIELDS)] * (record.fields is None)
    delete_files(store, [*left, second_name(unit, suffix), second_name(unit, FIELDS)])
    return settled


def delete_files(store: AnyPath, names: Iterable[str]) -> None:
    """Deletes files of units by their names; those that are not there are fine."""
    for name in names:
        path = store / SHARDS / name
        with writing(path):
            path.unlink(missing_ok=True)


def drop_record(store: AnyPath, unit: int) -> None:
    """Takes a unit back: it is to be done again. A record that is not there is fine.

    A record must never stand beside a shard that it does not describe, not even for a moment.
    """
    path = record_path(store, unit)
    with writing(path), suppress(FileNotFoundError):
        path.unlink()
        if isinstance(path, Path):
            sync_folder(path.parent)


def read_record(store: AnyPath, unit: int, roots: Roots = NO_ROOTS) -> CommitRecord:
    """A unit's commit record; StoreError names the file and what is wrong with it.

    Its sources are whole with the store's `roots`, and as they are written without.
    """
    path = record_path(store, unit)
    document = load_object(path)
    try:
        record = CommitRecord.from_json(document)
    except ValueError as error:
        raise StoreError(f"{path} is damaged: {error}.") from error
    names = {
        name for s in SUFFIXES.values() for name in (shard_name(unit, s), second_name(unit, s))
    }
    if record.unit != unit or record.shard not in names:
        raise StoreError(
            f"{path} is damaged: it is the record of unit {record.unit} and {record.shard}."
        )
    return _whole(record, roots) if roots.paths else record


def _whole(record: CommitRecord, roots: Roots) -> CommitRecord:
    rows = tuple(replace(row, source=roots.whole(row.source)) for row in record.rows)
    source = None if record.source is None else roots.whole(record.source)
    return replace(record, rows=rows, source=source)
