"""Says of each folder of a source whether what this program wrote is taken there."""

from __future__ import annotations

from collections.abc import Set

from latentcli.shards.layout import SHARDS
from latentcli.shards.sources.errors import is_a_store
from latentcli.shards.sources.own_output import (
    INNER,
    MARK,
    OUTPUT,
    TELLING,
    is_store,
    kind_of_folder,
    mark_of,
)
from latentcli.shards.sources.scan import Scan


def takes_own(
    folder: str, names: Set[str], scan: Scan, above: bool, *, is_source: bool
) -> bool | None:
    """Whether pictures of this program are taken in a folder; None where all of it is passed over.

    `names` are in the folder; `above` is the answer for the folder above it. Where the user named
    an output's folder as the source, its pictures are taken, but not those of an output inside of
    it. UsageError where the source is a store, or its folder of shards.
    """
    if is_source:
        refuse_shards(folder)
    if TELLING.isdisjoint(names):
        return above
    kind = kind_of_folder(folder, names)
    if is_source:
        if kind == "stores":
            raise is_a_store(folder)
        return above or (MARK in names and mark_of(folder) in (OUTPUT, INNER))
    if kind is not None and not (scan.include_output and kind == "reports"):
        scan.left_out.add(kind, folder)
        return None
    if MARK in names and mark_of(folder) == OUTPUT:
        return scan.include_output
    return above


def refuse_shards(folder: str | None) -> None:
    """UsageError where a folder is that of a store's shards."""
    store, _, name = (folder or "").rpartition("/")
    if name == SHARDS and is_store(store, TELLING):
        raise is_a_store(store)
