"""Lists the files that a URL of remote storage means, with sizes and times, in few calls."""

from __future__ import annotations

import glob
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import takewhile
from typing import TypeVar

from latentcli.core.errors import UsageError
from latentcli.shards.sources.file_list import Files, Source
from latentcli.shards.sources.local import matches, no_inputs, no_match
from latentcli.shards.storage.paths import RemotePath, RemoteStat, path_of

LISTED_FROM = 16
"""So many files of one folder are looked up by listing the folder."""
SECOND = 10**9
"""Nanoseconds."""
_AT_ONCE = 16
_WEB = ("http://", "https://")

Found = tuple[RemotePath, RemoteStat]
Result = TypeVar("Result")
Other = TypeVar("Other")


def expand_url(source: str, suffixes: frozenset[str]) -> Source:
    """A file, the files below a folder, or those that a glob matches; suffixes as for folders.

    Web servers have files only, and no globs. UsageError where there is none, or the storage
    refuses.
    """
    path = remote(source)
    found = None if source.endswith("/") and not is_web(source) else _file(path)
    if found is not None:
        return Source(source, folder_of(path.url), _files([(path, found)]), named=True)
    if is_pattern(source):
        return _glob(source, suffixes)
    below = [] if is_web(source) else list(_telling(path, path.find, []))
    if not below:
        raise UsageError(f"{source} does not exist: there is no file and no folder of this name.")
    skip = len(path.url) + 1
    files = _files(item for item in below if not _is_hidden(item[0].url[skip:]))
    files = files.where(lambda url: url.lower().endswith(tuple(suffixes)))
    if not len(files):
        raise no_inputs(source, suffixes)
    return Source(source, path.url, files)


def look_up(urls: Sequence[str]) -> tuple[Files, list[str]]:
    """Files by their names, with sizes and times; and the names that are not there."""
    folders: dict[str, list[str]] = defaultdict(list)
    for url in dict.fromkeys(remote(url).url for url in urls):
        folders[folder_of(url)].append(url)
    known: dict[str, RemoteStat] = {}
    single: list[str] = []
    for folder, wanted in folders.items():
        if len(wanted) < LISTED_FROM or is_web(folder):
            single += wanted
            continue
        here = set(wanted)
        for path, info in _telling(remote(folder), remote(folder).entries, []):
            if info is not None and path.url in here:
                known[path.url] = info
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for url, info in zip(single, pool.map(lambda url: _file(remote(url)), single), strict=True):
            if info is not None:
                known[url] = info
    ordered = [url for wanted in folders.values() for url in wanted]
    files = _files((remote(url), known[url]) for url in ordered if url in known)
    return files, [url for url in ordered if url not in known]


def is_pattern(url: str) -> bool:
    """Whether a URL has wildcards; in that of a web server, ? begins the query."""
    return glob.has_magic(url) and not is_web(url)


def is_web(url: str) -> bool:
    """Whether a URL is one of a web server, which lists no folders."""
    return url.lower().startswith(_WEB)


def folder_of(url: str) -> str:
    """The URL of the folder of a file, without a query."""
    return (url.partition("?")[0] if is_web(url) else url).rpartition("/")[0]


def remote(url: str) -> RemotePath:
    """The RemotePath of a URL that is known to be remote."""
    path = path_of(url)
    if not isinstance(path, RemotePath):
        raise ValueError(f"{url} is no URL of remote storage")
    return path


def _glob(source: str, suffixes: frozenset[str]) -> Source:
    scheme, _, rest = source.partition("://")
    parts = rest.split("/")
    literal = list(takewhile(lambda part: not glob.has_magic(part), parts))
    if not literal:
        raise UsageError(f"{source} has a wildcard in the name of its bucket; write the name.")
    anchor = remote(f"{scheme}://{'/'.join(literal)}")
    found = _files(_matching(anchor, parts[len(literal) :]))
    files = found.where(lambda url: url.lower().endswith(tuple(suffixes)))
    if not len(files):
        raise no_match(source, len(found), suffixes)
    return Source(source, anchor.url, files)


def _matching(folder: RemotePath, patterns: Sequence[str]) -> Iterator[Found]:
    """Folder by folder, and with one listing of everything from a ** on."""
    if patterns[0] == "**":
        skip = len(folder.url) + 1
        for path, info in _telling(folder, folder.find, []):
            names = path.url[skip:]
            if not _is_hidden(names) and matches(names.split("/"), patterns):
                yield path, info
        return
    for path, stat in _telling(folder, folder.entries, []):
        if not matches([path.name], patterns[:1]) or _is_hidden(path.name, patterns[0]):
            continue
        if len(patterns) == 1 and stat is not None:
            yield path, stat
        elif len(patterns) > 1 and stat is None:
            yield from _matching(path, patterns[1:])


def _is_hidden(names: str, pattern: str = "") -> bool:
    """Whether any part is hidden, unless a pattern asks for such names."""
    return (names.startswith(".") or "/." in names) and not pattern.startswith(".")


def _files(found: Iterable[Found]) -> Files:
    files = Files()
    for path, info in found:
        # A listing may be more exact than the look-up of one file, which tells whole seconds.
        files.add(path.url, info.st_size, max(info.st_mtime_ns // SECOND * SECOND, -1))
    return files


def _file(path: RemotePath) -> RemoteStat | None:
    return _telling(path, path.stat, None)


def _telling(path: RemotePath, call: Callable[[], Result], missing: Other) -> Result | Other:
    """The call's result, or `missing` where nothing is there; UsageError for other trouble."""
    try:
        return call()
    except FileNotFoundError:
        return missing
    except OSError as error:
        raise UsageError(f"{path} cannot be listed: {error.strerror}.") from error
