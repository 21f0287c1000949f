"""Walks the folders of this machine, and passes over what is hidden, ours, or closed to us."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from latentcli.core.errors import UsageError
from latentcli.shards.sources.own_folders import takes_own
from latentcli.shards.sources.own_output import MARK, TELLING
from latentcli.shards.sources.scan import Scan


@dataclass(frozen=True, slots=True)
class Run:
    """Some entries of one folder, sorted by name."""

    entries: list[os.DirEntry[str]]
    marked: bool
    """Whether some of the files may be what this program wrote, and are then left out."""


@dataclass(frozen=True, slots=True)
class Walk:
    """How the folders below a source are walked."""

    scan: Scan
    source: str
    """The folder that the walk began with."""
    takes_own: bool
    """Whether what this program wrote is taken here."""
    above: frozenset[tuple[int, int]] = frozenset()
    """Device and inode of the folders that this one is in."""

    def prunes(self, folder: os.DirEntry[str]) -> bool:
        """Whether a folder is passed over because of a pattern, and counts it."""
        return self.scan.prunes(folder.path, self.source)


def runs(source: str, scan: Scan) -> Iterator[Run]:
    """The files below a folder, sorted by name.

    Links to folders are followed, but never into a folder that they are inside of. UsageError where
    the folder itself cannot be listed, or is a store.
    """
    return _below(source, Walk(scan, source, scan.include_output))


def matching(source: str, patterns: Sequence[str], scan: Scan) -> Iterator[Run]:
    """The files whose path below a folder matches the parts of a glob, sorted; errors as `runs`."""
    return _matching(source, patterns, Walk(scan, source, scan.include_output))


def _below(folder: str, walk: Walk) -> Iterator[Run]:
    run, below = _listed(folder, walk)
    pending: list[os.DirEntry[str]] = []
    for entry in run.entries:
        if entry.name.startswith("."):
            walk.scan.count_hidden(entry.name, is_folder=_is_folder(entry))
        elif _is_folder(entry):
            if pending:
                yield replace(run, entries=pending)
                pending = []
            yield from (
                () if walk.scan.prunes(entry.path, walk.source) else _below(entry.path, below)
            )
        else:
            pending.append(entry)
    if pending:
        yield replace(run, entries=pending)


def _matching(folder: str, patterns: Sequence[str], walk: Walk) -> Iterator[Run]:
    if patterns[0] == "**":
        skip = len(folder.rstrip("/")) + 1
        for run in _below(folder, walk):
            chosen = [e for e in run.entries if matches(e.path[skip:].split("/"), patterns)]
            yield replace(run, entries=chosen)
        return
    run, below = _listed(folder, walk)
    files, wants_folders = list[os.DirEntry[str]](), len(patterns) > 1
    for entry in run.entries:
        if not fnmatchcase(entry.name, patterns[0]) or _is_folder(entry) != wants_folders:
            continue
        if entry.name.startswith(".") and not patterns[0].startswith("."):
            walk.scan.count_hidden(entry.name, is_folder=wants_folders)
        elif not wants_folders:
            files.append(entry)
        elif not walk.prunes(entry):
            yield from _matching(entry.path, patterns[1:], below)
    yield replace(run, entries=files)


def matches(names: Sequence[str], patterns: Sequence[str]) -> bool:
    """Whether the parts of a path match those of a glob; ** is any number of folders."""
    if not patterns:
        return not names
    if patterns[0] == "**":
        return (
            len(patterns) == 1
            or matches(names, patterns[1:])
            or (bool(names) and matches(names[1:], patterns))
        )
    return bool(names) and fnmatchcase(names[0], patterns[0]) and matches(names[1:], patterns[1:])


def _listed(folder: str, walk: Walk) -> tuple[Run, Walk]:
    """The entries of a folder, none where it is passed over; and how those below it are walked."""
    nothing = Run([], False), walk
    left_out = walk.scan.left_out
    try:
        info = Path(folder).stat()
        here = (info.st_dev, info.st_ino)
        if here in walk.above:
            left_out.add("link_loops", folder)
            return nothing
        with os.scandir(folder) as scan:
            entries = sorted(scan, key=lambda entry: entry.name)
    except OSError as error:
        _refused(folder, walk, error)
        return nothing
    names = TELLING.intersection(entry.name for entry in entries)
    is_source = folder == walk.source
    own = takes_own(folder, names, walk.scan, walk.takes_own, is_source=is_source)
    if own is None:
        return nothing
    below = replace(walk, takes_own=own, above=walk.above | {here})
    return Run(entries, MARK in names and not own), below


def _refused(folder: str, walk: Walk, error: OSError) -> None:
    """Counts a folder that is closed to us; UsageError for other trouble, which may pass.

    What is only for a while out of reach would seem to be gone. One that was deleted since its name
    was read is not there.
    """
    if folder == walk.source or not isinstance(
        error, PermissionError | FileNotFoundError | NotADirectoryError
    ):
        raise UsageError(f"the folder {folder} cannot be listed: {error.strerror}.") from error
    if isinstance(error, PermissionError):
        walk.scan.left_out.add("unreadable_folders", folder)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
