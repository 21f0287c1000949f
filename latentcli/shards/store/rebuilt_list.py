"""Makes the input list of a store anew from its commit records, where the list is gone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from latentcli.core.errors import StoreError
from latentcli.core.types import InputRow
from latentcli.shards.keys import escape, tar_stem
from latentcli.shards.layout import INPUTS, recorded_units
from latentcli.shards.storage.paths import AnyPath
from latentcli.shards.store.commit import CommitRecord, read_record
from latentcli.shards.store.input_list import write_inputs
from latentcli.shards.store.roots import Roots

STREAM = "-"
"""The source of units that came through standard input."""


@dataclass(frozen=True, slots=True)
class RebuiltList:
    """What of a list could be made again."""

    units: int
    inputs: int

    @property
    def note(self) -> str:
        """What to say of it: one plain sentence."""
        return (
            f"The store's {INPUTS} was missing; it was rebuilt from the commit records"
            f" ({self.units:,}), which name its inputs ({self.inputs:,}). Listed inputs without a"
            " record count as new."
        )


def is_list_lost(store: AnyPath) -> bool:
    """Whether a store has commit records and no input list, which is written before them.

    That of a stream is not: it is written when the stream has ended.
    """
    return not (store / INPUTS).exists() and bool(recorded_units(store))


def rebuild_inputs(store: AnyPath, roots: Roots, path: AnyPath | None = None) -> RebuiltList:
    """Writes the list that the commit records tell, at its own place or another one.

    Call it under the store's lock. Sizes and times of the inputs are not known from them, so that
    the next survey compares digests; nor are units that have no record. StoreError where a record
    is damaged too: then nobody knows what was in its unit.
    """
    units: set[int] = set()
    inputs = 0

    def counted() -> Iterator[InputRow]:
        nonlocal inputs
        for row in rows_of_records(store, roots):
            units.add(row.unit)
            inputs += 1
            yield row

    write_inputs(store / INPUTS if path is None else path, counted(), roots)
    return RebuiltList(len(units), inputs)


def rows_of_records(store: AnyPath, roots: Roots) -> Iterator[InputRow]:
    """The rows of the list, unit by unit; StoreError as `rebuild_inputs`."""
    for unit in recorded_units(store):
        try:
            record = read_record(store, unit, roots)
        except StoreError as error:
            raise StoreError(
                f"{store} has lost its {INPUTS}, and the commit record that would tell what is in"
                f" unit {unit} is damaged too: {error} Delete that record, and the same encode"
                " command treats the unit's inputs as new."
            ) from error
        yield from unit_rows_of(record)


def unit_rows_of(record: CommitRecord) -> Iterator[InputRow]:
    """The rows of one unit: its inputs, or the one tar that it was made from."""
    if record.source is None:
        yield from (InputRow(row.key, row.source, record.unit) for row in record.rows)
    else:
        yield InputRow(key_of_tar(record), record.source, record.unit)


def key_of_tar(record: CommitRecord) -> str:
    """The key of the tar that a unit was made from."""
    if record.source == STREAM:
        return f"stdin/{record.unit:06d}"
    if record.key is not None:
        return record.key
    # Only records of a first version do not say it; their samples' keys begin with it.
    stem = escape(tar_stem(PurePosixPath(record.source or "").name))
    keys = (row.key for row in record.rows)
    before = next((key.partition(f"{stem}/")[0] for key in keys if f"{stem}/" in key), "")
    return before + stem
