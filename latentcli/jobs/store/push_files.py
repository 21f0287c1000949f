"""Lists what of a store goes to the Hub, in the order in which it is committed there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from latentcli.jobs.store.card import CARD, PICTURES
from latentcli.shards.layout import FAILURES, INPUTS, MANIFEST, SHARDS, record_path
from latentcli.shards.sources.expand import PIPE
from latentcli.shards.sources.own_output import MARK
from latentcli.shards.storage.hub_repository import HubEntry, Upload
from latentcli.shards.storage.paths import is_remote
from latentcli.shards.store.commit import CommitRecord, read_record

COMMIT_FILES, COMMIT_BYTES = 150, 2**30
"""What a commit holds at most, but for a unit that is larger: the Hub gives up on large ones."""

_OURS = re.compile(
    rf"{SHARDS}/\d{{6,}}(\.1)?\.(safetensors|tar|json|fields\.jsonl)|{PICTURES}/\d{{3}}\.png"
)
_SECRET = re.compile(r"\?.*=|//[^/]*@")


@dataclass(frozen=True, slots=True)
class StoreFiles:
    """The files of a store that are pushed."""

    units: Sequence[Sequence[Upload]]
    """Of each unit: shard, fields, and the record last."""
    rest: Sequence[Upload]
    """What describes them, the manifest last."""
    secret: Sequence[str] = ()
    """Sources that are commands, or URLs with parameters."""
    absolute: int = 0
    """Inputs that are named by a path of this machine."""

    @property
    def names(self) -> set[str]:
        """Paths in the repository."""
        return {one.name for group in (*self.units, self.rest) for one in group}


def store_files(store: Path, units: Iterable[int]) -> StoreFiles:
    """What is pushed of a store, of these units; where the inputs lie is left out.

    StoreError where a record is damaged.
    """
    found, secret, absolute = [], dict[str, None](), 0
    for unit in units:
        record = read_record(store, unit)
        found.append(list(_unit(store, record)))
        for source in (record.source or "", *(row.source for row in record.rows)):
            secret |= dict.fromkeys([source] if is_secret(source) else [])
            absolute += source.startswith("/")
    return StoreFiles(found, list(_rest(store)), list(secret), absolute)


def is_secret(source: str) -> bool:
    """Whether a source may tell a password: a command, or a URL with parameters or a user."""
    return source.startswith(PIPE) or (is_remote(source) and bool(_SECRET.search(source)))


def _unit(store: Path, record: CommitRecord) -> Iterator[Upload]:
    yield Upload(f"{SHARDS}/{record.shard}", store / SHARDS / record.shard, record.sha256)
    if record.fields is not None:
        name, digest = record.fields.file, record.fields.sha256
        yield Upload(f"{SHARDS}/{name}", store / SHARDS / name, digest)
    path = record_path(store, record.unit)
    assert isinstance(path, Path)
    yield Upload(f"{SHARDS}/{path.name}", path)


def _rest(store: Path) -> Iterator[Upload]:
    pictures = sorted((store / PICTURES).glob("[0-9][0-9][0-9].png"))
    mark = [store / PICTURES / MARK] if pictures else []
    beside = [store / CARD, *mark, *pictures]
    for path in (store / FAILURES, *beside, store / INPUTS, store / MANIFEST):
        if path.is_file():
            yield Upload(path.relative_to(store).as_posix(), path)


def commits(
    files: StoreFiles, there: Mapping[str, HubEntry], *, anew: bool
) -> Iterator[tuple[list[Upload], list[str]]]:
    """What each commit uploads and deletes, so that `there` becomes the store.

    Where there are several, the first takes the manifest of an older store away and the last brings
    the new one, so that nobody reads a mixture. `anew` takes all of the old store away: it is
    another one.
    """
    ours = [name for name in there if _OURS.fullmatch(name)]
    kept = {} if anew else there
    units = [[one for one in unit if not one.is_there(kept.get(one.name))] for unit in files.units]
    rest = [one for one in files.rest if not one.is_there(kept.get(one.name))]
    groups = list(_groups(unit for unit in units if unit))
    size = sum(one.size for group in groups[-1:] for one in group)
    if groups and size + sum(one.size for one in rest) <= COMMIT_BYTES:
        rest = [*groups.pop(), *rest]
    if groups:
        first = [MANIFEST] if MANIFEST in there else []
        if anew:
            sent = {one.name for one in groups[0]}
            first += [name for name in ours if name not in sent]
        yield groups[0], first
        rest = [*(one for one in rest if one.name != MANIFEST), files.rest[-1]]
    yield from ((group, []) for group in groups[1:])
    gone = [name for name in ours if name not in files.names and not (anew and groups)]
    if rest or gone:
        yield rest, gone


def _groups(units: Iterable[Sequence[Upload]]) -> Iterator[list[Upload]]:
    group: list[Upload] = []
    size = 0
    for unit in units:
        more = sum(one.size for one in unit)
        if group and (len(group) + len(unit) > COMMIT_FILES or size + more > COMMIT_BYTES):
            yield group
            group, size = [], 0
        group.extend(unit)
        size += more
    if group:
        yield group
