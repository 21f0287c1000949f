"""A store and what its sources hold now in; the frozen list, and the units left to do, out."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from latentcli.core.errors import StoreError
from latentcli.core.types import InputRow
from latentcli.jobs.talk import Talk
from latentcli.shards.commit import done_units, drop_record, read_record
from latentcli.shards.inputs import InputList, write_inputs
from latentcli.shards.layout import INPUTS
from latentcli.shards.plan import FoundInput, append_units, assign_units

SHOWN = 3
"""Names in a message."""


@dataclass(frozen=True, slots=True)
class Work:
    """The inputs of a store and what is left of them."""

    inputs: InputList
    todo: tuple[int, ...]
    """Units to encode."""
    changed: int
    """Inputs that are no longer what was encoded, and whose latents are kept all the same."""


def plan_work(
    store: Path,
    spec_hash: str,
    found: Sequence[FoundInput],
    samples_per_shard: int,
    retry: str | None,
    talk: Talk,
) -> Work:
    """Freezes the list of a new store, or appends what is new to that of an old one.

    `retry` is failed (units with failed inputs are encoded again), changed (units with inputs of
    another size or modification time are), or None. StoreError where none of the inputs found is
    in the store: then it belongs to another folder.
    """
    path = store / INPUTS
    if not path.exists():
        write_inputs(path, assign_units(found, samples_per_shard))
    frozen = InputList.open(path)
    changed = changed_rows(frozen, found)
    done = done_units(store, spec_hash, frozen)
    done -= {unit for unit in done if is_retried(store, unit, retry, changed)}
    new = new_rows(store, frozen, found, samples_per_shard)
    if new:
        talk.note(f"{len(new):,} inputs are new since the store was made; they are appended.")
    # What is encoded now is listed as it is now; but no record may stand beside a line that it
    # was not made from.
    fresh = [row for row in changed if row.unit not in done]
    for unit in {row.unit for row in fresh}:
        drop_record(store, unit)
    if new or fresh:
        write_inputs(path, itertools.chain(updated(frozen, fresh), new))
        frozen = InputList.open(path)
    kept = [row for row in changed if row.unit in done]
    if kept:
        talk.note(changed_note(kept))
    todo = tuple(unit for unit in range(frozen.units) if unit not in done)
    return Work(frozen, todo, len(kept))


def is_retried(store: Path, unit: int, retry: str | None, changed: Sequence[InputRow]) -> bool:
    """Whether a unit that is done is to be done again."""
    if retry == "failed":
        return read_record(store, unit).failed > 0
    return retry == "changed" and any(row.unit == unit for row in changed)


def new_rows(
    store: Path, frozen: InputList, found: Sequence[FoundInput], samples_per_shard: int
) -> list[InputRow]:
    """Rows of the inputs that the list does not have yet; StoreError where it has none of them."""
    new = append_units(frozen, found, samples_per_shard)
    if len(new) == len(found) and len(frozen):
        first = next(iter(frozen)).source
        raise StoreError(
            f"{store} holds the latents of other inputs, such as {first}, and none of those given"
            " now. Choose another output folder (-o), or give the old sources as well to add to it."
        )
    return new


def changed_rows(frozen: Iterable[InputRow], found: Sequence[FoundInput]) -> list[InputRow]:
    """Rows whose file has another size or modification time now, with the new ones."""
    now = {item.path: item for item in found}
    rows = []
    for row in frozen:
        item = now.get(row.source)
        if item is not None and (item.size, item.mtime_ns) != (row.size, row.mtime_ns):
            rows.append(replace(row, size=item.size, mtime_ns=item.mtime_ns))
    return rows


def updated(frozen: Iterable[InputRow], changed: Sequence[InputRow]) -> Iterable[InputRow]:
    """The frozen rows, with the changed ones in their places."""
    by_source = {row.source: row for row in changed}
    return (by_source.get(row.source, row) for row in frozen)


def changed_note(changed: Sequence[InputRow]) -> str:
    """What to say of inputs that changed behind the store's back."""
    names = ", ".join(row.source for row in changed[:SHOWN])
    more = f" and {len(changed) - SHOWN:,} more" if len(changed) > SHOWN else ""
    return (
        f"{len(changed):,} inputs have another size or modification time than when they were"
        f" listed: {names}{more}. Their latents are kept; --retry changed encodes their shards"
        " again."
    )
