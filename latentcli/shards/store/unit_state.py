"""Finds out what has become of each unit of a store so far."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from operator import attrgetter
from pathlib import Path

from latentcli.core.errors import StoreError
from latentcli.core.types import FILTERED, InputRow, Row
from latentcli.shards.layout import SHARDS, record_path
from latentcli.shards.storage.json_files import may_pass
from latentcli.shards.storage.paths import AnyPath
from latentcli.shards.store.commit import CommitRecord, read_record
from latentcli.shards.store.input_list import InputList
from latentcli.shards.tar.member import MARK

DONE, LEFT, DAMAGED, OUTDATED = "done", "left", "damaged", "outdated"

_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class UnitState:
    """What has become of a unit."""

    unit: int
    state: str
    """DONE, LEFT (no commit record), DAMAGED (a record that does not fit the shard or list), or
    OUTDATED (it has all inputs of the list, and others too or under other names)."""
    inputs: Sequence[InputRow]
    rows: Sequence[Row] = ()
    """What became of the inputs, where the unit is DONE or OUTDATED, under their names of the list;
    of a tar, what became of its samples."""
    record: CommitRecord | None = None
    """Where the unit is DONE or OUTDATED."""
    unread: StoreError | None = None
    """Of a DAMAGED unit: why its record cannot be read now, where it may be sound all the same."""

    @property
    def failed(self) -> int:
        """Samples that failed."""
        return sum(row.status == "failed" for row in self.rows)

    @property
    def failed_inputs(self) -> frozenset[str]:
        """Keys of the inputs that failed; of a tar, where any of its samples did."""
        if self.record is not None and self.record.source is not None:
            return frozenset(row.key for row in self.inputs if self.failed)
        return frozenset(row.key for row in self.rows if row.status == "failed")

    @property
    def filtered_inputs(self) -> frozenset[str]:
        """Keys of the inputs that a filter refused; none of tars, which are taken as a whole."""
        return frozenset(row.key for row in self.rows if row.status == FILTERED)

    def has_latent(self, index: int) -> bool:
        """Whether an input has a latent; of a tar, whether any of its samples has."""
        rows = self.rows
        if self.record is None or self.record.source is None:
            rows = rows[index : index + 1]
        return any(row.status == "ok" for row in rows)

    @property
    def digests(self) -> Sequence[str | None]:
        """Of the inputs, in their order, as they were when they were encoded."""
        if self.record is not None and self.record.source is not None:
            return [self.record.sha256_source]
        return [row.sha256 for row in self.rows]


def unit_states(store: AnyPath, spec_hash: str, inputs: InputList) -> Iterator[UnitState]:
    """States of all units that have inputs, in order; every record is read once, and no shard.

    A unit is done where its record is sound, names this spec, and lists exactly its inputs, and
    where its shard has the recorded size.
    """
    sizes = file_sizes(store / SHARDS)

    def state(unit: int) -> UnitState:
        return unit_state(store, unit, spec_hash, inputs, sizes)

    if isinstance(store, Path):
        yield from map(state, inputs.numbers)
        return
    units = iter(inputs.numbers)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        while block := list(islice(units, 4 * _AT_ONCE)):
            yield from pool.map(state, block)


def unit_state(
    store: AnyPath, unit: int, spec_hash: str, inputs: InputList, sizes: Mapping[str, int]
) -> UnitState:
    """The state of one unit; `sizes` are those of all files beside its shard."""
    listed = inputs.rows(unit)
    if record_path(store, unit).name not in sizes:
        return UnitState(unit, LEFT, listed)
    try:
        record = read_record(store, unit, inputs.roots)
    except StoreError as error:
        unread = error if may_pass(store, error) else None
        return UnitState(unit, DAMAGED, listed, unread=unread)
    pairs = row_pairs(record, listed)
    fits = record.spec_hash == spec_hash and sizes.get(record.shard) == record.bytes
    if record.fields is not None:
        fits = fits and sizes.get(record.fields.file) == record.fields.bytes
    if not fits or pairs is None:
        return UnitState(unit, DAMAGED, listed)
    state = DONE if is_current(record, listed) else OUTDATED
    return UnitState(unit, state, listed, [row for _, row in pairs], record)


def is_current(record: CommitRecord, inputs: Sequence[InputRow]) -> bool:
    """Whether a record lists exactly these inputs, or was made from the one tar that they are."""
    if record.source is None:
        return list(map(_names, record.rows)) == list(map(_names, inputs))
    if [record.source] != [item.source for item in inputs]:
        return False
    return record.key in (None, inputs[0].key)


def row_pairs(record: CommitRecord, inputs: Sequence[InputRow]) -> Sequence[tuple[Row, Row]] | None:
    """Rows of a record for these inputs, in their order: as they are, and under today's names.

    An input is known by its source, or by its digest where it has another name by now: of rows of
    equal digests the first is meant that is no other input's, where some are gone the first that
    has a latent. None where one is not in the record.
    """
    if record.source is not None:
        return _tar_pairs(record, inputs)
    if is_current(record, inputs):
        return [(row, row) for row in record.rows]
    rest = {row.source: row for row in record.rows}
    own = {item.source: rest.pop(item.source) for item in inputs if _is_row(rest, item)}
    by_digest = defaultdict[str | None, list[Row]](list)
    left_over = list(reversed(rest.values()))
    if len(inputs) < len(record.rows):
        left_over.sort(key=lambda row: row.status == "ok")
    for left in left_over:
        by_digest[left.sha256].append(left)
    pairs = []
    for item in inputs:
        row = own.get(item.source)
        if row is None:
            same = by_digest[item.sha256] if item.sha256 else []
            # An input that was renamed and then encoded again: the list has yet to say so.
            row = same.pop() if same else rest.get(item.source)
        if row is None:
            return None
        named = _names(row) == _names(item)
        pairs.append((row, row if named else replace(row, key=item.key, source=item.source)))
    return pairs


def _is_row(rows: Mapping[str, Row], item: InputRow) -> bool:
    """Whether the row of an input's source is the input's: another input may have that name now."""
    row = rows.get(item.source)
    return row is not None and item.sha256 in (None, row.sha256)


_names = attrgetter("key", "source")


def _tar_pairs(
    record: CommitRecord, inputs: Sequence[InputRow]
) -> Sequence[tuple[Row, Row]] | None:
    if len(inputs) != 1:
        return None
    item, old = inputs[0], record.source or ""
    if is_current(record, inputs):
        return [(row, row) for row in record.rows]
    if record.key is None or (old != item.source and record.sha256_source != item.sha256):
        return None
    before, after = (f"{key}/" if key else "" for key in (record.key, item.key))
    return [
        (
            row,
            replace(
                row,
                key=after + row.key.removeprefix(before),
                source=_moved(row.source, old, item.source),
            ),
        )
        for row in record.rows
    ]


def _moved(source: str, old: str, new: str) -> str:
    """A sample's source with another tar in front; a file that a table names has none."""
    return new + source.removeprefix(old) if source.startswith(f"{old}{MARK}") else source


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
