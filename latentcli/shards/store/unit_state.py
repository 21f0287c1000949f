"""Finds out what has become of each unit of a store so far."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from latentcli.core.errors import StoreError
from latentcli.core.types import InputRow
from latentcli.shards.layout import SHARDS, record_path
from latentcli.shards.storage.paths import AnyPath
from latentcli.shards.store.commit import CommitRecord, is_of, read_record
from latentcli.shards.store.input_list import InputList

DONE, LEFT, DAMAGED = "done", "left", "damaged"

_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class UnitState:
    """What has become of a unit."""

    unit: int
    state: str
    """DONE, LEFT (no commit record) or DAMAGED (a record that does not fit the shard or list)."""
    inputs: Sequence[InputRow]
    failed: int = 0
    """Samples that failed, where the unit is done."""
    failed_inputs: frozenset[str] = frozenset()
    """Keys of the inputs that failed; of a tar, where any of its samples did."""
    digests: Sequence[str | None] = ()
    """Of the inputs, in their order, as they were when they were encoded."""
    record: CommitRecord | None = None
    """Of a unit that is done."""


def unit_states(store: AnyPath, spec_hash: str, inputs: InputList) -> Iterator[UnitState]:
    """States of all units, in order; every record is read once, and no shard.

    A unit is done where its record is sound, names this spec, and lists exactly its inputs, and
    where its shard has the recorded size.
    """
    sizes = file_sizes(store / SHARDS)

    def state(unit: int) -> UnitState:
        return unit_state(store, unit, spec_hash, inputs.rows(unit), sizes)

    if isinstance(store, Path):
        yield from map(state, range(inputs.units))
        return
    units = iter(range(inputs.units))
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        while block := list(islice(units, 4 * _AT_ONCE)):
            yield from pool.map(state, block)


def unit_state(
    store: AnyPath, unit: int, spec_hash: str, inputs: Sequence[InputRow], sizes: dict[str, int]
) -> UnitState:
    """The state of one unit; `sizes` are those of all files beside its shard."""
    if record_path(store, unit).name not in sizes:
        return UnitState(unit, LEFT, inputs)
    try:
        record = read_record(store, unit)
    except StoreError:
        return UnitState(unit, DAMAGED, inputs)
    fits = record.spec_hash == spec_hash and sizes.get(record.shard) == record.bytes
    if not fits or not is_of(record, inputs):
        return UnitState(unit, DAMAGED, inputs)
    if record.source is not None:
        failed = frozenset(row.key for row in inputs if record.failed)
        digests: Sequence[str | None] = [record.sha256_source]
    else:
        failed = frozenset(row.key for row in record.rows if row.status == "failed")
        digests = [row.sha256 for row in record.rows]
    return UnitState(unit, DONE, inputs, record.failed, failed, digests, record)


def file_sizes(folder: AnyPath) -> dict[str, int]:
    """Bytes of each file of a folder, by name, from one listing; empty where there is none."""
    try:
        if not isinstance(folder, Path):
            return {path.name: info.st_size for path, info in folder.entries() if info is not None}
        with os.scandir(folder) as entries:
            return {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise StoreError(f"{folder} cannot be listed: {error.strerror}.") from error
