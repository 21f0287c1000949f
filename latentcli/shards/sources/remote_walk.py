"""Walks the folders of remote storage, and passes over what is hidden or ours."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple, TypeVar

from latentcli.core.errors import UsageError
from latentcli.shards.layout import SHARDS
from latentcli.shards.sources.own_folders import takes_own
from latentcli.shards.sources.own_output import MARK, TELLING
from latentcli.shards.sources.scan import Scan
from latentcli.shards.sources.walk import matches
from latentcli.shards.storage.paths import RemotePath, RemoteStat

Found = tuple[RemotePath, RemoteStat]
Result = TypeVar("Result")
Other = TypeVar("Other")


class Listed(NamedTuple):
    """A file of remote storage."""

    path: RemotePath
    info: RemoteStat
    marked: bool
    """Whether it may be one that this program wrote, and is then left out."""


def below(source: RemotePath) -> list[Found]:
    """All files below a folder in one listing, none where there is no such folder."""
    return list(telling(source, source.find, []))


def visible(source: RemotePath, listing: Sequence[Found], scan: Scan) -> Iterator[Listed]:
    """The files of a source's whole listing, without what is hidden or passed over."""
    return Listing(source.url, source.url, scan, scan.include_output, listing).visible()


def matching(source: RemotePath, patterns: Sequence[str], scan: Scan) -> Iterator[Listed]:
    """The files whose path below a folder matches the parts of a glob.

    Folder by folder, and with one listing of everything from a ** on. UsageError where the source
    is a store or the storage refuses.
    """
    return _matching(source, patterns, source.url, scan, scan.include_output)


def _matching(
    folder: RemotePath, patterns: Sequence[str], source: str, scan: Scan, above: bool
) -> Iterator[Listed]:
    if patterns[0] == "**":
        skip = len(folder.url) + 1
        for listed in Listing(folder.url, source, scan, above, below(folder)).visible():
            if matches(listed.path.url[skip:].split("/"), patterns):
                yield listed
        return
    entries = telling(folder, folder.entries, [])
    names = TELLING.intersection(path.name for path, _ in entries)
    own = takes_own(folder.url, names, scan, above, is_source=folder.url == source)
    wants_folders = len(patterns) > 1
    for path, info in entries if own is not None else []:
        if not fnmatchcase(path.name, patterns[0]) or (info is None) != wants_folders:
            continue
        if path.name.startswith(".") and not patterns[0].startswith("."):
            scan.count_hidden(path.name, is_folder=wants_folders)
        elif info is not None:
            yield Listed(path, info, MARK in names and not own)
        elif not scan.prunes(path.url, source):
            yield from _matching(path, patterns[1:], source, scan, bool(own))


class Listing:
    """All files below a folder; each folder in it is judged once, and counted once."""

    def __init__(
        self, folder: str, source: str, scan: Scan, above: bool, files: Sequence[Found]
    ) -> None:
        self._folder, self._source, self._scan, self._above = folder, source, scan, above
        self._files = files
        self._names: defaultdict[str, set[str]] = defaultdict(set)
        self._own: dict[str, bool | None] = {}

    def visible(self) -> Iterator[Listed]:
        """The files that are not hidden, nor in folders that are passed over."""
        self._note_names()
        for path, info in self._files:
            folder, _, name = path.url.rpartition("/")
            own = self._takes_own(folder)
            if own is not None and name.startswith("."):
                self._scan.count_hidden(name)
            elif own is not None:
                yield Listed(path, info, MARK in self._names.get(folder, ()) and not own)

    def _note_names(self) -> None:
        """Notes in which folders the TELLING names are."""
        for path, _ in self._files:
            folder, _, name = path.url.rpartition("/")
            if name in TELLING:
                self._names[folder].add(name)
            if folder.endswith(f"/{SHARDS}"):
                self._names[folder.rpartition("/")[0]].add(SHARDS)

    def _takes_own(self, folder: str) -> bool | None:
        """Whether pictures of this program are taken in a folder; None where it is passed over."""
        if folder not in self._own:
            self._own[folder] = self._judged(folder)
        return self._own[folder]

    def _judged(self, folder: str) -> bool | None:
        above: bool | None = self._above
        if folder != self._folder:
            outer, _, name = folder.rpartition("/")
            above = self._takes_own(outer)
            if above is None or self._scan.prunes(folder, self._source):
                return None
            if name.startswith("."):
                self._scan.count_hidden(name, is_folder=True)
                return None
        names = self._names.get(folder, set())
        is_source = folder == self._source
        return takes_own(folder, names, self._scan, bool(above), is_source=is_source)


def telling(path: RemotePath, call: Callable[[], Result], missing: Other) -> Result | Other:
    """The call's result, or `missing` where nothing is there; UsageError for other trouble."""
    try:
        return call()
    except FileNotFoundError:
        return missing
    except OSError as error:
        raise UsageError(f"{path} cannot be listed: {error.strerror}.") from error
