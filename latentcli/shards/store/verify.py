"""Verifies the files of a store, unit by unit, and lists every problem."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from latentcli.core.errors import StoreError
from latentcli.core.types import InputRow, Row
from latentcli.shards.keys import KeyIndex
from latentcli.shards.layout import (
    FAILURES,
    FIELDS,
    INPUTS,
    SHARDS,
    record_path,
    second_name,
    shard_name,
)
from latentcli.shards.storage.paths import AnyPath
from latentcli.shards.store.commit import CommitRecord, read_record
from latentcli.shards.store.input_list import InputList
from latentcli.shards.store.manifest import Manifest, Totals, read_manifest
from latentcli.shards.store.shard_digest import difference
from latentcli.shards.store.shard_file import ShardFile, open_shard
from latentcli.shards.store.unit_state import is_current
from latentcli.shards.store.writer import added

_NAMES = (shard_name, second_name)
"""How the files of a unit may be named."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a store."""

    kind: str
    """record, shard, size, digest, tensors, shape, inputs, duplicate, totals or stray."""
    what: str
    """One plain sentence."""
    unit: int | None = None
    key: str | None = None


def verify_shards(store: AnyPath, parts: Collection[str] | None = None) -> Iterator[Problem]:
    """Problems of a store, found while its shards are read once from end to end.

    `parts` are the tensors that every encoded key must have; without it, those of the first one.
    Tensors with as many axes as the row's latent shape must have that shape. Nothing is yielded
    for a sound store. StoreError where there is no store, or its manifest or list is damaged.
    """
    manifest = read_manifest(store)
    inputs = InputList.open(store / INPUTS)
    expected = None if parts is None else frozenset(parts)
    totals = Totals()
    for unit in inputs.numbers:
        try:
            record = read_record(store, unit, inputs.roots)
        except StoreError as error:
            yield Problem("record", _record_text(store, unit, error), unit)
            continue
        totals = added(totals, record)
        yield from _check_record(record, manifest, inputs.rows(unit))
        path = store / SHARDS / record.shard
        yield from _check_file(path, record.bytes, record.sha256, unit)
        if record.fields is not None:
            fields = record.fields
            path_of_fields = store / SHARDS / fields.file
            yield from _check_file(path_of_fields, fields.bytes, fields.sha256, unit)
        try:
            shard = open_shard(path)
        except StoreError as error:
            yield Problem("shard", str(error), unit)
            continue
        with shard:
            expected = expected or _first_parts(shard, record)
            yield from _check_tensors(shard, record, expected or frozenset())
    keys_of = partial(_sample_keys, store) if manifest.tars else partial(_input_keys, inputs)
    yield from _check_keys(keys_of, inputs.numbers)
    yield from _check_totals(store, manifest, totals)
    yield from _strays(store, inputs.numbers, manifest.suffix)


def _record_text(store: AnyPath, unit: int, error: StoreError) -> str:
    path = record_path(store, unit)
    return str(error) if path.exists() else f"{path} is missing: the unit is not done."


def _check_record(
    record: CommitRecord, manifest: Manifest, inputs: Sequence[InputRow]
) -> Iterator[Problem]:
    if record.spec_hash != manifest.spec_hash:
        yield Problem("record", f"unit {record.unit} was made with another spec.", record.unit)
    if not record.shard.endswith(manifest.suffix):
        what = f"unit {record.unit} is {record.shard}, but shards here are {manifest.suffix} files."
        yield Problem("record", what, record.unit)
    if (record.source is not None) != manifest.tars or not is_current(record, inputs):
        what = f"unit {record.unit} does not list the inputs that {INPUTS} gives it."
        yield Problem("inputs", what, record.unit)


def _check_file(path: AnyPath, recorded: int, sha256: str, unit: int) -> Iterator[Problem]:
    found = difference(path, recorded, sha256)
    if found is not None:
        yield Problem(*found, unit)


def _parts_by_key(shard: ShardFile) -> dict[str, dict[str, tuple[int, ...]]]:
    keys: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, entry in shard.entries.items():
        key, _, part = name.rpartition("/")
        keys.setdefault(key, {})[part] = entry.shape
    return keys


def _first_parts(shard: ShardFile, record: CommitRecord) -> frozenset[str] | None:
    keys = _parts_by_key(shard)
    encoded = (row.key for row in record.rows if row.status == "ok")
    return next((frozenset(keys[key]) for key in encoded if key in keys), None)


def _check_tensors(
    shard: ShardFile, record: CommitRecord, expected: frozenset[str]
) -> Iterator[Problem]:
    keys = _parts_by_key(shard)
    for row in record.rows:
        found = keys.pop(row.key, {})
        wanted = expected if row.status == "ok" else frozenset()
        for part in sorted(wanted - found.keys()):
            what = f"{row.key!r} has no tensor {part} in unit {record.unit}."
            yield Problem("tensors", what, record.unit, row.key)
        for part in sorted(found.keys() - wanted):
            what = f"{row.key!r} has an unexpected tensor {part} in unit {record.unit}."
            yield Problem("tensors", what, record.unit, row.key)
        yield from _check_shapes(row, found, record.unit)
    for key in sorted(keys):
        what = f"unit {record.unit} holds tensors of {key!r}, which is none of its inputs."
        yield Problem("tensors", what, record.unit, key)


def _check_shapes(row: Row, found: dict[str, tuple[int, ...]], unit: int) -> Iterator[Problem]:
    if row.status == "ok" and row.latent_shape is None:
        yield Problem("shape", f"the row of {row.key!r} has no latent shape.", unit, row.key)
        return
    for part, shape in sorted(found.items()):
        if len(shape) == len(row.latent_shape or ()) and shape != row.latent_shape:
            what = f"{row.key!r} has {part} of shape {shape}, its row says {row.latent_shape}."
            yield Problem("shape", what, unit, row.key)


def _input_keys(inputs: InputList, unit: int) -> list[str]:
    return [row.key for row in inputs.rows(unit)]


def _sample_keys(store: AnyPath, unit: int) -> list[str]:
    try:
        return [row.key for row in read_record(store, unit).rows]
    except StoreError:
        return []  # was said when the unit was looked at


def _check_keys(keys_of: Callable[[int], list[str]], units: Sequence[int]) -> Iterator[Problem]:
    index = KeyIndex((key, unit) for unit in units for key in keys_of(unit))
    seen: dict[str, int] = {}
    for unit in index.suspects():
        for key in keys_of(unit):
            if key in seen:
                what = f"{key!r} is in unit {seen[key]} and again in unit {unit}."
                yield Problem("duplicate", what, unit, key)
            seen[key] = unit


def _check_totals(store: AnyPath, manifest: Manifest, totals: Totals) -> Iterator[Problem]:
    if manifest.status != "complete":
        yield Problem("totals", f"{store} is not finished: its manifest says {manifest.status}.")
        return
    if manifest.totals != totals:
        yield Problem("totals", f"the manifest counts {manifest.totals}, the records {totals}.")
    try:
        with (store / FAILURES).open("rb") as file:
            lines = sum(1 for _ in file)
    except OSError as error:
        yield Problem("totals", f"{store / FAILURES} cannot be read: {error.strerror}.")
        return
    if lines != totals.failed:
        yield Problem("totals", f"{FAILURES} lists {lines} inputs, the records {totals.failed}.")


def _strays(store: AnyPath, units: Sequence[int], suffix: str) -> Iterator[Problem]:
    known = {name(unit, end) for unit in units for end in (suffix, FIELDS) for name in _NAMES}
    known |= {record_path(store, unit).name for unit in units}
    try:
        found = sorted(path.name for path in (store / SHARDS).iterdir())
    except FileNotFoundError:
        return  # storage without folders: there is no file
    for name in found:
        if name not in known:
            yield Problem("stray", f"{store / SHARDS / name} belongs to no unit of the store.")
