"""Finds out what has become of each input of a store, and what a job has to do about it."""

from __future__ import annotations

import gc
from array import array
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from latentcli.core.errors import StoreError
from latentcli.core.types import InputRow
from latentcli.jobs.encode.captions import companions_of
from latentcli.jobs.encode.findings import RETRIES, USUAL_ASK, Ask, Survey
from latentcli.jobs.encode.identity import (
    Listed,
    altered,
    has_times,
    listed,
    located,
    renamed,
    with_twins,
)
from latentcli.jobs.runtime.meter import ignore
from latentcli.shards.layout import INPUTS
from latentcli.shards.sources.file_list import FoundInput, FoundInputs
from latentcli.shards.sources.match import Match
from latentcli.shards.storage.paths import AnyPath
from latentcli.shards.store.commit import CommitRecord
from latentcli.shards.store.input_list import InputList
from latentcli.shards.store.rebuilt_list import is_list_lost
from latentcli.shards.store.roots import Roots
from latentcli.shards.store.unit_state import DAMAGED, DONE, LEFT, OUTDATED, UnitState, unit_states


@dataclass(slots=True)
class _Look:
    """What the units are looked at with."""

    survey: Survey
    found: FoundInputs
    match: Match
    rekey: bool
    """Whether inputs have the keys of a new store: it is of the same folder as this one."""
    ask: Ask
    stamps: array[int] | None
    """Of the inputs found: these change with their captions and other fields."""
    rekeyed: list[tuple[InputRow, int]] = field(default_factory=list)
    """Rows whose inputs were found under other keys, and their places."""
    gone: list[Listed] = field(default_factory=list)
    whole: set[int] = field(default_factory=set)
    """Units that are encoded as a whole."""
    outdated: set[int] = field(default_factory=set)
    texts: set[int] = field(default_factory=set)


@contextmanager
def uncollected() -> Iterator[None]:
    """Stops Python's search for cycles: rows are in none, and it took a third of the time."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


@uncollected()
def survey(
    store: AnyPath,
    spec_hash: str,
    found: Sequence[FoundInput],
    samples_per_shard: int,
    ask: Ask = USUAL_ASK,
    *,
    seen: Callable[[CommitRecord, Roots], object] = ignore,
) -> Survey:
    """What is to be done for these inputs, and why. Reads the store, writes nothing.

    `seen` is shown the records of units that are done, in order, and the roots of their sources.
    StoreError where none of the inputs found is in the store: then it belongs to another dataset;
    and where the store has lost its list.
    """
    found = found if isinstance(found, FoundInputs) else FoundInputs.of(found)
    path = store / INPUTS
    if is_list_lost(store):
        raise StoreError(
            f"{store} has commit records but no {INPUTS}, so its inputs are not known. The encode"
            " command rebuilds the list from the records, and keeps what is encoded."
        )
    if not path.exists():
        now = Survey(None, Roots(captions=ask.captions).with_roots(found.roots, found.anchor))
        now.add("new", found.keys)
        now.todo = list(range(-(-len(found) // samples_per_shard)))
        now.to_encode = len(found)
        now.stamps = stamps_of(now, found, ask)
        return now
    frozen = InputList.open(path)
    roots, moved = located(store, spec_hash, frozen, found)
    frozen.roots = roots
    same = roots.anchor is not None and roots.anchor == found.anchor
    rekey = ask.rekey and same and not found.packed
    roots = replace(roots, captions=ask.captions or roots.captions)
    now = Survey(frozen, roots.with_roots(found.roots, found.anchor), moved)
    now.copied = ask.compare == "stat" and moved and not has_times(frozen, found)
    now.stamps = stamps_of(now, found, ask)
    look = _Look(now, found, Match(found, rekey=rekey), rekey, ask, now.stamps)
    for state in unit_states(store, spec_hash, frozen):
        look_at(look, state)
        if state.state == DONE and state.record is not None and state.unit not in now.parts:
            seen(state.record, frozen.roots)
    settle_names(look)
    add_new(look, samples_per_shard)
    now.todo.sort()
    # What is encoded as a whole is not written anew before: it may have no record by then.
    now.outdated, now.texts = sorted(look.outdated - look.whole), sorted(look.texts)
    return now


def stamps_of(now: Survey, found: FoundInputs, ask: Ask) -> array[int] | None:
    """What the captions and other fields of the inputs found are told by; 0 where there are none.

    Texts of packed inputs are in these.
    """
    if ask.captions is None or found.packed:
        return None
    now.companions = companions_of(ask.captions, now.roots, packed=found.packed)
    if now.companions is None:
        return array("q", bytes(8 * len(found)))
    stamps, now.captions = now.companions.stamps(found.files)
    return stamps


def look_at(look: _Look, state: UnitState) -> None:
    """Takes in one unit."""
    now, ask, inputs = look.survey, look.ask, state.inputs
    if state.unread is not None:
        # To take it for damaged would be to encode again what may be sound.
        raise state.unread
    there = places(look, state)
    if state.state in (LEFT, DAMAGED):
        take_unit(look, state, there)
        note_keys(look, state, there)
        lost = [row for row, at in zip(inputs, there, strict=True) if at is None]
        look.gone += [Listed(row, None) for row in lost]
        here = [row.key for row, at in zip(inputs, there, strict=True) if at is not None]
        now.add(state.state, here)
        return
    if state.state == OUTDATED:
        look.outdated.add(state.unit)
    items = listed(state)
    verdicts = changes(look, items, there)
    # What cannot be read now is not to take the place of what was encoded.
    unread = {i for i, other in verdicts.items() if other is None and state.has_latent(i)}
    there = [None if i in unread else at for i, at in enumerate(there)]
    for i in unread:
        look.match.keep(inputs[i])
    note_keys(look, state, there)
    look.gone += [items[i] for i, at in enumerate(there) if at is None]
    changed = {i for i, other in verdicts.items() if other is not False} - unread
    reasons = reasons_of(state, there, changed)
    again = [i for i, reason in enumerate(reasons) if reason in RETRIES[ask.retry]]
    for name in ("done", "changed", "failed", "filtered"):
        now.add(name, [inputs[i].key for i, reason in enumerate(reasons) if reason == name])
    if again and (look.found.packed or (ask.whole and None not in there)):
        take_unit(look, state, there)
        return
    if again:
        now.todo.append(state.unit)
        now.parts[state.unit] = tuple(again)
        now.to_encode += len(again)
    now.kept += [inputs[i] for i in sorted(changed) if i not in again]
    now.failed += state.failed - sum(reasons[i] == "failed" for i in again)
    now.samples += len(state.rows) - len(again)
    refresh(look, state, there, kept=changed.difference(again), again=set(again))


def places(look: _Look, state: UnitState) -> list[int | None]:
    """Where the inputs of a unit are among those found."""
    return [look.match.position(row) for row in state.inputs]


def note_keys(look: _Look, state: UnitState, there: Sequence[int | None]) -> None:
    """Notes which inputs of a unit were found under other keys."""
    if look.rekey:
        keys = look.found.keys
        rows = zip(state.inputs, there, strict=True)
        look.rekeyed += [(row, at) for row, at in rows if at is not None and keys[at] != row.key]


def changes(
    look: _Look, items: Sequence[Listed], there: Sequence[int | None]
) -> dict[int, bool | None]:
    """By index, of the inputs of a unit that have another size or time: whether they have changed.

    None where that is not known, as an input cannot be read.
    """
    by_stat = look.ask.compare == "stat"
    asked = {
        i: look.found.files.sizes[at]
        for i, (item, at) in enumerate(zip(items, there, strict=True))
        if at is not None and not (by_stat and looks_same(look, item.row, at))
    }
    if look.survey.copied:
        # The times are those of the copying, and say nothing.
        return {i: None if n < 0 else n != items[i].row.size for i, n in asked.items()}
    verdicts = altered([items[i] for i in asked], list(asked.values()))
    return dict(zip(asked, verdicts, strict=True))


def reasons_of(state: UnitState, there: Sequence[int | None], changed: set[int]) -> list[str]:
    """Why each input of a unit that is done is encoded again, or not."""
    failed, filtered = state.failed_inputs, state.filtered_inputs
    return [
        "gone"
        if there[i] is None
        else "changed"
        if i in changed
        else "failed"
        if row.key in failed
        else "filtered"
        if row.key in filtered
        else "done"
        for i, row in enumerate(state.inputs)
    ]


def take_unit(look: _Look, state: UnitState, there: Sequence[int | None]) -> None:
    """A unit is encoded as a whole: its rows are listed as they are now."""
    now = look.survey
    look.whole.add(state.unit)
    now.todo.append(state.unit)
    now.to_encode += len(state.inputs)
    fresh = {
        row.source: row_now(look, row, at, sha256=None)
        for row, at in zip(state.inputs, there, strict=True)
        if at is not None
    }
    listed_as = {row.source: row for row in state.inputs}
    different = {source: row for source, row in fresh.items() if row != listed_as[source]}
    now.at_once |= different
    if different:
        now.again.add(state.unit)


def row_now(look: _Look, row: InputRow, at: int, **more: Any) -> InputRow:
    """A row with the size, time and stamp that its input has now."""
    files, stamp = look.found.files, stamp_now(look, row, at)
    return replace(row, size=files.sizes[at], mtime_ns=files.times[at], stamp=stamp, **more)


def stamp_now(look: _Look, row: InputRow, at: int) -> int:
    """What the captions and other fields of an input are told by now."""
    return row.stamp if look.stamps is None else look.stamps[at]


def looks_same(look: _Look, row: InputRow, at: int) -> bool:
    """Whether an input has the size and time that are listed."""
    files = look.found.files
    return files.sizes[at] == row.size and files.times[at] == row.mtime_ns


def refresh(
    look: _Look,
    state: UnitState,
    there: Sequence[int | None],
    *,
    kept: Collection[int],
    again: Collection[int],
) -> None:
    """Notes which rows of a unit say something else once all is done.

    Inputs that are `kept`, though they have changed, stay listed as they were; those that are
    encoded `again` are known by their names from then on.
    """
    for i, (row, at) in enumerate(zip(state.inputs, there, strict=True)):
        if at is None:
            continue
        stamp = stamp_now(look, row, at)
        if stamp != row.stamp:
            look.texts.add(state.unit)
        elif i not in again and looks_same(look, row, at):
            continue
        if i in kept:
            fresh = replace(row, stamp=stamp)
        else:
            fresh = row_now(look, row, at, sha256=None if i in again else row.sha256)
        if fresh != row:
            look.survey.at_end[row.source] = fresh


def settle_names(look: _Look) -> None:
    """Finds out which inputs have other names now, and gives their rows these."""
    now, found = look.survey, look.found
    pairs = renamed(with_twins(look.gone), found, look.match.new()) if look.gone else {}
    lost = {item.row.source for item in pairs.values()}
    now.gone += [item.row for item in look.gone if item.row.source not in lost]
    now.add("gone", [row.key for row in now.gone])
    now.add("renamed", [found.keys[at] for at in sorted(pairs)])
    for at, item in pairs.items():
        look.match.take(at, item.row)
    free = free_names(look, [(item.row, at) for at, item in sorted(pairs.items())] + look.rekeyed)
    for at, item in pairs.items():
        key = found.keys[at] if at in free else item.row.key
        named = row_now(look, item.row, at, key=key, source=found.files.paths[at])
        stamp = stamp_before(look, item, at)
        name_row(look, item.row, replace(named, stamp=stamp, sha256=item.sha256), at)
    for row, at in look.rekeyed:
        if at in free:
            name_row(look, row, replace(now.at_once.get(row.source, row), key=found.keys[at]), at)


def stamp_before(look: _Look, item: Listed, at: int) -> int:
    """What the captions are listed by of an input that was renamed, until they are what they are.

    Those of a twin may be taken for its own: then it is one that differs, and they are read.
    """
    unsure = item.has_twin and look.stamps is not None
    return ~stamp_now(look, item.row, at) if unsure else item.row.stamp


def free_names(look: _Look, wanted: list[tuple[InputRow, int]]) -> set[int]:
    """The places of those rows whose new key no other row keeps; the others keep their own."""
    while blocked := {at for _, at in wanted if not look.match.is_free(look.found.keys[at])}:
        for row, at in wanted:
            if at in blocked:
                look.match.keep(row)
        wanted = [(row, at) for row, at in wanted if at not in blocked]
    return {at for _, at in wanted}


def name_row(look: _Look, old: InputRow, new: InputRow, at: int) -> None:
    """A row gets another name before anything is encoded; its unit is written anew."""
    now = look.survey
    now.at_once[old.source] = new
    stamp = stamp_now(look, new, at)
    at_end = now.at_end.pop(old.source, new)
    at_end = replace(at_end, key=new.key, source=new.source, stamp=stamp)
    if at_end != new:
        now.at_end[new.source] = at_end
        if stamp != new.stamp:
            look.texts.add(new.unit)
    # What is encoded as a whole has no shard that could be written anew.
    (now.again if new.unit in look.whole else look.outdated).add(new.unit)


def add_new(look: _Look, samples_per_shard: int) -> None:
    """Gives the inputs that are new their rows; StoreError where none was in the store."""
    now, match = look.survey, look.match
    assert now.frozen is not None
    if len(match.new()) == len(look.found) and len(now.frozen):
        first = next(iter(now.frozen)).source
        raise StoreError(
            f"The store holds the latents of other inputs, such as {first}, and none of those given"
            " now. Choose another output folder (-o), or give the old sources as well to add to it."
        )
    now.new = match.new_rows(samples_per_shard)
    if look.stamps is not None:
        stamps = {look.found.files.paths[at]: look.stamps[at] for at in match.new()}
        now.new = [replace(row, stamp=stamps[row.source]) for row in now.new]
    now.add("new", [row.key for row in now.new])
    now.todo += sorted({row.unit for row in now.new})
    now.to_encode += len(now.new)
