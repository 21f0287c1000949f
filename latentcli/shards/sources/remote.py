"""Lists the files that a URL of remote storage means, with sizes and times, in few calls."""

from __future__ import annotations

import glob
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import takewhile

from latentcli.core.errors import UsageError
from latentcli.shards.sources.errors import no_inputs, no_match
from latentcli.shards.sources.file_list import Files, Source
from latentcli.shards.sources.heads import REMOTE_LIMIT, Doubtful
from latentcli.shards.sources.own_output import own_files
from latentcli.shards.sources.remote_walk import Listed, below, matching, telling, visible
from latentcli.shards.sources.scan import Scan
from latentcli.shards.storage.paths import RemotePath, RemoteStat, path_of

LISTED_FROM = 16
"""So many files of one folder are looked up by listing the folder."""
SECOND = 10**9
"""Nanoseconds."""
_AT_ONCE = 16
_WEB = ("http://", "https://")


def expand_url(source: str, scan: Scan) -> Source:
    """A file, or what is wanted below a folder or of what a glob matches.

    Web servers have files only, and no globs. UsageError where there is none, or the storage
    refuses.
    """
    path = remote(source)
    found = None if source.endswith("/") and not is_web(source) else _file(path)
    if found is not None:
        files = _files([(path, found)])
        return scan.named(Source(source, folder_of(path.url), files, named=True))
    if is_pattern(source):
        return _glob(source, scan)
    listing = [] if is_web(source) else below(path)
    if not listing:
        raise UsageError(f"{source} does not exist: there is no file and no folder of this name.")
    before = scan.left_out.counts.copy()
    files = _wanted(visible(path, listing, scan), path.url, scan)
    if not len(files):
        raise no_inputs(source, scan, before)
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
        for path, info in telling(remote(folder), remote(folder).entries, []):
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
        raise ValueError(f"{url} is not a URL of remote storage")
    return path


def _glob(source: str, scan: Scan) -> Source:
    scheme, _, rest = source.partition("://")
    parts = rest.split("/")
    literal = list(takewhile(lambda part: not glob.has_magic(part), parts))
    if not literal:
        raise UsageError(f"{source} has a wildcard in the name of its bucket; write the name.")
    anchor = remote(f"{scheme}://{'/'.join(literal)}")
    before = scan.left_out.counts.copy()
    found = list(matching(anchor, parts[len(literal) :], scan))
    files = _wanted(found, anchor.url, scan)
    if not len(files):
        raise no_match(source, len(found), scan, before)
    return Source(source, anchor.url, files)


def _wanted(listed: Iterable[Listed], source: str, scan: Scan) -> Files:
    """What is wanted of some files below a source."""
    files, doubtful, skip = Files(), Doubtful(), len(source) + 1
    listed = list(listed)
    marked = [file for file in listed if file.marked]
    own = own_files([f.path.url for f in marked], [f.info.st_size for f in marked])
    for path, info, is_marked in listed:
        size, time = info.st_size, whole_seconds(info)
        is_own = is_marked and next(own)
        if scan.takes(*(path.url, path.url[skip:], doubtful), own=is_own, size=size, mtime_ns=time):
            files.add(path.url, size, time)
    for item in scan.pictures(doubtful, REMOTE_LIMIT):
        files.add(*item)
    return files


def _files(found: Iterable[tuple[RemotePath, RemoteStat]]) -> Files:
    files = Files()
    for path, info in found:
        files.add(path.url, info.st_size, whole_seconds(info))
    return files


def whole_seconds(info: RemoteStat) -> int:
    """The time of a file; a listing may be more exact than the look-up of one file."""
    return max(info.st_mtime_ns // SECOND * SECOND, -1)


def _file(path: RemotePath) -> RemoteStat | None:
    return telling(path, path.stat, None)
