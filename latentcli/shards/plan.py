"""Sources as a user writes them in; a frozen, ordered list of inputs with keys and units out."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from latentcli.core.errors import UsageError
from latentcli.core.types import InputRow
from latentcli.shards.keys import free_key, unique_keys
from latentcli.shards.sources import expand_source


@dataclass(frozen=True, slots=True)
class FoundInput:
    """One input before it has a unit."""

    path: str
    """Absolute."""
    key: str
    """Unique among the inputs found together."""
    size: int
    """Bytes, or -1 where the file cannot be reached."""
    mtime_ns: int
    """Modification time in nanoseconds, or -1."""


def find_inputs(sources: Sequence[str], suffixes: frozenset[str]) -> list[FoundInput]:
    """Inputs of folders (recursive), files, globs and @lists, sorted by key, each path once.

    A key is the path relative to the deepest folder common to all sources, without the suffix;
    see `unique_keys` for clashes. `suffixes` are lower case with the dot. UsageError where a
    source does not exist or gives no input.
    """
    if not sources:
        raise UsageError("no source given: name a folder, a file, a glob or @list.txt.")
    expanded = [expand_source(source, suffixes) for source in sources]
    base = posixpath.commonpath([source.anchor for source in expanded])
    files = {file.path: file for source in expanded for file in source.files}
    keys = unique_keys([path.removeprefix(base).lstrip("/") for path in files])
    found = [
        FoundInput(file.path, key, file.size, file.mtime_ns)
        for key, file in zip(keys, files.values(), strict=True)
    ]
    return sorted(found, key=lambda item: item.key)


def assign_units(
    found: Sequence[FoundInput], samples_per_shard: int, *, first_unit: int = 0
) -> list[InputRow]:
    """Inputs in their order, `samples_per_shard` to a unit, from `first_unit` on."""
    if samples_per_shard < 1:
        raise UsageError(f"samples per shard is {samples_per_shard}, it must be at least 1.")
    return [
        InputRow(item.key, item.path, first_unit + i // samples_per_shard, item.size, item.mtime_ns)
        for i, item in enumerate(found)
    ]


def append_units(
    frozen: Iterable[InputRow], found: Sequence[FoundInput], samples_per_shard: int
) -> list[InputRow]:
    """Rows of the inputs whose path is not in the frozen list, in new units after its last.

    The frozen rows stay as they are; a new key that one of them has is changed (`free_key`).
    """
    sources: set[str] = set()
    taken: set[str] = set()
    last = -1
    for row in frozen:
        sources.add(row.source)
        taken.add(row.key)
        last = max(last, row.unit)
    new = [item for item in found if item.path not in sources]
    clashing = {item.path for item in new if item.key in taken}
    taken.update(item.key for item in new)
    renamed = []
    for item in new:
        key = free_key(item.key, item.path, taken) if item.path in clashing else item.key
        taken.add(key)
        renamed.append(replace(item, key=key))
    renamed.sort(key=lambda item: item.key)
    return assign_units(renamed, samples_per_shard, first_unit=last + 1)
