"""Tells inputs by their bytes: which are changed, which have another name, which have moved."""

from __future__ import annotations

import posixpath
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from latentcli.core.types import InputRow
from latentcli.shards.sources.digests import digests_of, is_readable
from latentcli.shards.sources.expand import PIPE
from latentcli.shards.sources.file_list import FoundInputs
from latentcli.shards.storage.paths import AnyPath, is_remote
from latentcli.shards.store.input_list import InputList
from latentcli.shards.store.roots import Roots, below
from latentcli.shards.store.unit_state import UnitState, file_sizes, unit_state

COMPARED = 32
"""Inputs whose digests decide whether a dataset is the one that a store was made from."""


@dataclass(frozen=True, slots=True)
class Listed:
    """One input of a store as it is listed, with the digest of what was encoded."""

    row: InputRow
    sha256: str | None
    has_twin: bool = False
    """Whether another input of its unit has the same bytes: once one of them is renamed and the
    other one is gone, nobody knows which of them the record means."""


def altered(inputs: Sequence[Listed], sizes: Sequence[int]) -> list[bool | None]:
    """Of each input, whether its bytes are not those that were encoded; `sizes` are today's.

    Another size says so at once. Where no digest was recorded, nothing speaks for the old bytes.
    None where the input is there and cannot be read: that says nothing of its bytes.
    """
    sure = [
        item.sha256 is None or item.row.size not in (size, -1)
        for item, size in zip(inputs, sizes, strict=True)
    ]
    read = [item.row.source for item, other in zip(inputs, sure, strict=True) if not other]
    digests = digests_of(read)
    verdicts = list[bool | None]()
    for item, size, other in zip(inputs, sizes, sure, strict=True):
        source, missing = item.row.source, size < 0 <= item.row.size
        if other:
            verdicts.append(None if missing or not is_readable(source) else True)
        else:
            digest = next(digests)
            unread = digest is None and not source.startswith(PIPE)
            verdicts.append(None if unread else digest != item.sha256)
    return verdicts


def renamed(gone: Sequence[Listed], found: FoundInputs, new: Iterable[int]) -> dict[int, Listed]:
    """By place among those found: the inputs that are gone and have another name by now.

    Only inputs of the size of one that is gone are read, and all where such a size is not known.
    Of several with the same bytes, each stands for one, in their order. A file that is still where
    it was has no other name: a pattern or a limit leaves it out.
    """
    by_digest = defaultdict[str, deque[Listed]](deque)
    for item in gone:
        if item.sha256 is not None:
            by_digest[item.sha256].append(item)
    sizes = {item.row.size for item in gone if item.sha256 is not None}
    places = [at for at in new if -1 in sizes or found.files.sizes[at] in sizes]
    pairs = dict[int, Listed]()
    for at, digest in zip(places, digests_of(found.files.paths[at] for at in places), strict=True):
        same = by_digest.get(digest) if digest is not None else None
        while same:
            item = same.popleft()
            if not stays(item, found):
                pairs[at] = item
                break
    return pairs


def stays(item: Listed, found: FoundInputs) -> bool:
    """Whether an input that the sources do not give lies in their folders as it was encoded.

    What lies elsewhere may be what a dataset was copied from.
    """
    source = item.row.source
    if is_remote(source) or not any(below(root, source) is not None for root in found.roots):
        return False
    # Most of them are not there at all, which costs less to know than a digest.
    return posixpath.exists(source) and next(digests_of([source])) == item.sha256


def located(
    store: AnyPath, spec_hash: str, inputs: InputList, found: FoundInputs
) -> tuple[Roots, bool]:
    """Where the inputs of a store lie today, and whether they have moved.

    A root that none of the inputs found is below has moved to one of the new folders where inputs
    of the same names have the same bytes there: at least half of those that are compared.
    """
    roots = inputs.roots
    new = sorted(set(found.roots).difference(roots.paths))
    if not new:
        return roots, False
    kept = {root for path in found.files.paths for root in roots.above(path)}
    lost = [root for root in roots.paths if root not in kept]
    moved = False
    for old in lost:
        place = next((r for r in new if _is_moved(store, spec_hash, inputs, found, old, r)), None)
        if place is not None:
            new.remove(place)
            roots, moved = roots.moved(old, place), True
    return roots, moved


def _is_moved(
    store: AnyPath, spec_hash: str, inputs: InputList, found: FoundInputs, old: str, new: str
) -> bool:
    places = {
        name: at
        for at, path in enumerate(found.files.paths)
        if (name := below(new, path)) is not None
    }
    met = [
        row
        for row in inputs
        if (name := below(old, row.source)) in places
        and row.size in (-1, found.files.sizes[places[name or ""]])
    ]
    chosen = met[:: max(1, -(-len(met) // COMPARED))]
    known = [item for item in with_digests(store, spec_hash, inputs, chosen) if item.sha256]
    paths = [found.files.paths[places[below(old, item.row.source) or ""]] for item in known]
    same = sum(digest == item.sha256 for digest, item in zip(digests_of(paths), known, strict=True))
    return same > 0 and 2 * same >= len(known)


def has_times(inputs: InputList, found: FoundInputs) -> bool:
    """Whether any input has the time that the list has of it, as a folder that is renamed keeps."""
    times = dict(zip(found.files.paths, found.files.times, strict=True))
    return any(times.get(row.source) == row.mtime_ns for row in inputs)


def with_digests(
    store: AnyPath, spec_hash: str, inputs: InputList, rows: Iterable[InputRow]
) -> Iterator[Listed]:
    """Some rows of the list, in order, with the digests that their records have."""
    sizes: Mapping[str, int] | None = None
    unit, known = -1, dict[str, str | None]()
    for row in rows:
        if row.unit != unit:
            sizes = file_sizes(store / "shards") if sizes is None else sizes
            unit = row.unit
            state = unit_state(store, unit, spec_hash, inputs, sizes)
            known = {item.row.key: item.sha256 for item in listed(state)}
        yield Listed(row, known.get(row.key))


def listed(state: UnitState) -> list[Listed]:
    """The inputs of a unit with their digests; without these where the unit is not done."""
    if state.record is None:
        return [Listed(row, None) for row in state.inputs]
    counts = Counter(row.sha256 for row in state.record.rows)
    return [
        Listed(row, sha256, counts[sha256] > 1)
        for row, sha256 in zip(state.inputs, state.digests, strict=True)
    ]


def with_twins(gone: Sequence[Listed]) -> list[Listed]:
    """The same, of which those that have the bytes of another one have a twin too."""
    counts = Counter(item.sha256 for item in gone)
    return [replace(item, has_twin=item.has_twin or counts[item.sha256] > 1) for item in gone]
