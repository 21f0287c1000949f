"""Finishes what a killed job began with the files of a store's units, and deletes units.

A unit whose inputs are all gone is marked, then its inputs are taken out of the list, and then it
is deleted: whatever is killed in between, it is either listed and whole, or it is deleted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from latentcli.core.errors import StoreError
from latentcli.shards.layout import (
    FIELDS,
    GONE,
    INPUTS,
    SHARDS,
    file_names,
    second_name,
    second_units,
    shard_name,
)
from latentcli.shards.storage.atomic_write import atomic_write
from latentcli.shards.storage.json_files import may_pass
from latentcli.shards.storage.paths import AnyPath
from latentcli.shards.store.commit import delete_files, drop_record, read_record, settle_unit
from latentcli.shards.store.input_list import InputList
from latentcli.shards.store.roots import Roots


def settle(store: AnyPath, roots: Roots, suffix: str) -> None:
    """Ends what a killed job began; call it under the store's lock.

    `suffix` is that of the shards. Without a list no unit is deleted; StoreError where units are
    marked and it is damaged.
    """
    names = file_names(store / SHARDS)
    units = second_units(names)
    marked = {unit for unit in units if second_name(unit, GONE) in names}
    listed = _listed(store, roots) if marked and (store / INPUTS).exists() else marked
    for unit in units:
        if unit in marked and unit not in listed:
            delete_unit(store, unit, suffix)
            continue
        delete_files(store, [second_name(unit, GONE)] * (unit in marked))
        try:
            record = read_record(store, unit, roots)
        except StoreError as error:
            # The record may name these files, where it is only out of reach.
            if not may_pass(store, error):
                delete_files(store, [name for name in names if second_units([name]) == [unit]])
            continue
        settle_unit(store, record, roots)


def _listed(store: AnyPath, roots: Roots) -> Collection[int]:
    return frozenset(InputList.open(store / INPUTS, roots).numbers)


def mark_units(store: AnyPath, units: Iterable[int]) -> None:
    """Marks units whose inputs the list is about to lose."""
    for unit in units:
        atomic_write(store / SHARDS / second_name(unit, GONE), [])


def delete_unit(store: AnyPath, unit: int, suffix: str) -> None:
    """Deletes a unit that is not listed any more: its record, its files, and its mark last."""
    drop_record(store, unit)
    ends = (suffix, FIELDS)
    usual, second = ([name(unit, end) for end in ends] for name in (shard_name, second_name))
    delete_files(store, [*usual, *second, second_name(unit, GONE)])
