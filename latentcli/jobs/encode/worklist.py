"""Freezes the input list of a store, and finds the units that are left to do."""

from __future__ import annotations

import gc
import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from latentcli.core.errors import StoreError, UsageError
from latentcli.core.types import InputRow
from latentcli.jobs.runtime.meter import ignore
from latentcli.jobs.runtime.reporter import Reporter
from latentcli.shards.layout import INPUTS
from latentcli.shards.sources.expand import PIPE
from latentcli.shards.sources.file_list import FoundInput, FoundInputs
from latentcli.shards.sources.find_inputs import Match, unit_rows
from latentcli.shards.storage.paths import AnyPath, path_of
from latentcli.shards.store.commit import CommitRecord, drop_record
from latentcli.shards.store.input_list import InputList, write_inputs
from latentcli.shards.store.unit_state import DONE, UnitState, unit_states

SHOWN = 3
"""Names in a message."""
REASONS = {
    "new": "not in the store yet",
    "left": "listed, but not encoded yet",
    "damaged": "their shard or its record is damaged or gone",
    "changed": "changed since they were encoded",
    "failed": "failed before",
    "done": "encoded already",
}
"""What an input can be. Of several, the first holds."""

_READERS = 4


@dataclass(frozen=True, slots=True)
class Reason:
    """The inputs of one kind."""

    count: int
    examples: tuple[str, ...]
    """Keys of the first few."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What a job would find to do in a store, before anything is written there."""

    frozen: InputList | None
    """The store's list as it is; None where it has none yet."""
    reasons: Mapping[str, Reason]
    """By name of REASONS; the counts sum up to the inputs of the store and the new ones."""
    todo: tuple[int, ...]
    """Units to encode, those of new inputs as well."""
    to_encode: int
    """Inputs in these units."""
    new: Sequence[InputRow]
    """Rows that the list gets at its end. None for a store without a list: it gets all."""
    fresh: Sequence[InputRow]
    """Rows of units to encode whose files have another size or time now, with the new ones."""
    kept: Sequence[InputRow]
    """The same, of changed inputs whose latents are kept all the same."""
    failed: int
    """Samples that failed before and are not tried again."""
    samples: int
    """Samples, failed ones too, in the units that are not encoded again."""


@dataclass(frozen=True, slots=True)
class Work:
    """The inputs of a store and what is left of them."""

    inputs: InputList
    todo: tuple[int, ...]
    """Units to encode."""
    changed: int
    """Inputs that are no longer what was encoded, and whose latents are kept all the same."""
    failed: int = 0
    """Samples that failed before and are not tried again."""
    samples: int = 0
    """Samples, failed ones too, in the units that are not encoded again."""


@dataclass(slots=True)
class _Counts:
    """Counts inputs by reason."""

    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(REASONS, 0))
    examples: dict[str, list[str]] = field(default_factory=lambda: {name: [] for name in REASONS})

    def add(self, reason: str, keys: Sequence[str]) -> None:
        self.counts[reason] += len(keys)
        self.examples[reason] += keys[: SHOWN - len(self.examples[reason])]

    def reasons(self) -> dict[str, Reason]:
        return {name: Reason(self.counts[name], tuple(self.examples[name])) for name in REASONS}


def plan_work(
    store: AnyPath,
    spec_hash: str,
    found: Sequence[FoundInput],
    samples_per_shard: int,
    retry: str | None,
    reporter: Reporter,
    *,
    compare: str = "stat",
    seen: Callable[[CommitRecord], object] = ignore,
) -> Work:
    """Freezes the list of a new store, or appends what is new to that of an old one.

    The options are those of `survey`, and so are the errors.
    """
    path = store / INPUTS
    now = survey(store, spec_hash, found, samples_per_shard, retry, compare=compare, seen=seen)
    if now.frozen is None:
        write_inputs(path, unit_rows(found, samples_per_shard))
        return Work(InputList.open(path), now.todo, 0)
    frozen = now.frozen
    if now.new:
        count = len(now.new)
        reporter.note(f"{count:,} inputs are new since the store was made; they are appended.")
    # What is encoded now is listed as it is now; but no record may stand beside a line that it
    # was not made from.
    for unit in {row.unit for row in now.fresh}:
        drop_record(store, unit)
    if now.new or now.fresh:
        write_inputs(path, itertools.chain(updated(frozen, now.fresh), now.new))
        frozen = InputList.open(path)
    if now.kept:
        reporter.note(changed_note(now.kept, compare))
    return Work(frozen, now.todo, len(now.kept), now.failed, now.samples)


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
    retry: str | None = None,
    *,
    compare: str = "stat",
    seen: Callable[[CommitRecord], object] = ignore,
) -> Survey:
    """What is to be done for these inputs, and why. Reads the store, writes nothing.

    `retry` is failed (units with failed inputs are encoded again), changed (units with changed
    inputs are), or None. `compare` is stat (size and modification time tell a changed input) or
    digest (its bytes do: every input is read). `seen` is shown the records of units that are done,
    in order. StoreError where none of the inputs found is in the store: then it belongs to another
    folder.
    """
    found = found if isinstance(found, FoundInputs) else FoundInputs.of(found)
    counts = _Counts()
    path = store / INPUTS
    if not path.exists():
        counts.add("new", found.keys)
        units = -(-len(found) // samples_per_shard)
        todo = tuple(range(units))
        return Survey(None, counts.reasons(), todo, len(found), (), (), (), 0, 0)
    frozen = InputList.open(path)
    match = Match(found)
    again: list[int] = []
    fresh: list[InputRow] = []
    kept: list[InputRow] = []
    failed = samples = 0
    for state in unit_states(store, spec_hash, frozen):
        now = changes(state, found, match)
        if state.state != DONE:
            again.append(state.unit)
            fresh += now.values()
            counts.add(state.state, [row.key for row in state.inputs])
            continue
        if state.record is not None:
            seen(state.record)
        changed = altered(state, now) if compare == "digest" else now
        count(counts, state, changed)
        if (retry == "failed" and state.failed) or (retry == "changed" and changed):
            again.append(state.unit)
            fresh += now.values()
        else:
            kept += changed.values()
            failed += state.failed
            samples += state.record.inputs if state.record is not None else 0
    new = new_rows(store, frozen, found, match, samples_per_shard)
    counts.add("new", [row.key for row in new])
    todo = (*again, *sorted({row.unit for row in new}))
    to_encode = sum(frozen.count(unit) for unit in again) + len(new)
    reasons = counts.reasons()
    return Survey(frozen, reasons, todo, to_encode, new, fresh, kept, failed, samples)


def changes(state: UnitState, found: FoundInputs, match: Match) -> dict[str, InputRow]:
    """By key, the rows of a unit whose file has another size or time now, with the new ones."""
    sizes, times = found.files.sizes, found.files.times
    now = {}
    for row in state.inputs:
        at = match.position(row)
        if at is not None and (sizes[at], times[at]) != (row.size, row.mtime_ns):
            now[row.key] = replace(row, size=sizes[at], mtime_ns=times[at])
    return now


def altered(state: UnitState, now: Mapping[str, InputRow]) -> dict[str, InputRow]:
    """Of a unit that is done, the rows whose bytes are not those that were encoded.

    Size and time decide where no digest was recorded, or where the input cannot be read now.
    """
    with ThreadPoolExecutor(_READERS) as pool:
        pairs = list(zip(state.inputs, state.digests, strict=True))
        current = pool.map(lambda pair: pair[1] and digest_of(pair[0].source), pairs)
        return {
            row.key: now.get(row.key, row)
            for (row, before), after in zip(pairs, current, strict=True)
            if (row.key in now if None in (before, after) else before != after)
        }


def digest_of(source: str) -> str | None:
    """Hexadecimal sha256 of an input's bytes; None where it cannot be read, or is a command."""
    if source.startswith(PIPE):
        return None
    try:
        with path_of(source).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def count(counts: _Counts, state: UnitState, changed: Mapping[str, InputRow]) -> None:
    """Counts the inputs of a unit that is done."""
    if not changed and not state.failed_inputs:
        counts.add("done", [row.key for row in state.inputs])
        return
    for row in state.inputs:
        failed = "failed" if row.key in state.failed_inputs else "done"
        counts.add("changed" if row.key in changed else failed, [row.key])


def new_rows(
    store: AnyPath, frozen: InputList, found: FoundInputs, match: Match, samples_per_shard: int
) -> list[InputRow]:
    """Rows of the inputs that the list does not have yet; StoreError where it has none of them."""
    if len(match.new()) == len(found) and len(frozen):
        first = next(iter(frozen)).source
        raise StoreError(
            f"{store} holds the latents of other inputs, such as {first}, and none of those given"
            " now. Choose another output folder (-o), or give the old sources as well to add to it."
        )
    return match.new_rows(samples_per_shard)


def updated(frozen: Iterable[InputRow], changed: Sequence[InputRow]) -> Iterator[InputRow]:
    """The frozen rows, with the changed ones in their places."""
    by_source = {row.source: row for row in changed}
    return (by_source.get(row.source, row) for row in frozen)


def changed_note(changed: Sequence[InputRow], compare: str) -> str:
    """What to say of inputs that changed behind the store's back."""
    names = ", ".join(row.source for row in changed[:SHOWN])
    more = f" and {len(changed) - SHOWN:,} more" if len(changed) > SHOWN else ""
    what = "other bytes" if compare == "digest" else "another size or modification time"
    return (
        f"{len(changed):,} inputs have {what} than when they were listed: {names}{more}. Their"
        " latents are kept; --retry changed encodes their shards again."
    )


def refuse_commands(rows: Iterable[InputRow]) -> None:
    """UsageError where a row of a store is a shell command, which nobody allowed this time."""
    for row in rows:
        if row.source.startswith(PIPE):
            raise UsageError(
                f"unit {row.unit} of the store is made from the shell command {row.source}, and is"
                " to be encoded; --allow-pipe allows to run it."
            )
