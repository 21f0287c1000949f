"""Lists the files that a folder, file or glob of this machine means, with sizes and times."""

from __future__ import annotations

import glob
import os
import posixpath
import stat
from collections.abc import Iterable
from itertools import repeat, takewhile
from pathlib import Path

from latentcli.core.errors import UsageError
from latentcli.shards.sources.errors import no_inputs, no_match
from latentcli.shards.sources.file_list import Files, Source
from latentcli.shards.sources.heads import LOCAL_LIMIT, Doubtful
from latentcli.shards.sources.own_output import own_files
from latentcli.shards.sources.scan import Scan
from latentcli.shards.sources.walk import Run, matching, runs


def absolute(path: str) -> str:
    """Absolute path with the user's own names kept: links are resolved only in front of `..`."""
    parts = Path(path).parts
    if ".." not in parts:
        return posixpath.abspath(path)
    last = len(parts) - parts[::-1].index("..")
    return posixpath.join(posixpath.realpath(posixpath.join(*parts[:last])), *parts[last:])


def expand_path(text: str, path: str, scan: Scan) -> Source:
    """A file, or the files below a folder; `path` is absolute."""
    files = Files()
    anchor = add_path(files, path, scan)
    source = Source(text, anchor, files, named=anchor != path)
    return scan.named(source) if source.named else source


def add_path(files: Files, path: str, scan: Scan) -> str:
    """Takes a file, or what is wanted below a folder; the folder of it, or itself.

    A file need not be there: reading it will say why. UsageError where a folder holds no input.
    """
    if _add_file(files, path):
        return posixpath.dirname(path)
    before, left_before = len(files), scan.left_out.counts.copy()
    _add_runs(files, runs(path, scan), scan, path)
    if len(files) == before:
        raise no_inputs(path, scan, left_before)
    return path


def expand_glob(source: str, scan: Scan) -> Source:
    """The wanted files that a glob matches; ** is any number of folders."""
    parts = Path(source).parts
    literal = list(takewhile(lambda part: not glob.has_magic(part), parts))
    anchor, patterns = absolute(posixpath.join(".", *literal)), parts[len(literal) :]
    if ".." in patterns:
        raise UsageError(f"{source} has .. after a wildcard: write the path without it.")
    files, before, matched = Files(), scan.left_out.counts.copy(), 0
    if posixpath.isdir(anchor):
        matched = _add_runs(files, matching(anchor, patterns, scan), scan, anchor)
    if not len(files):
        raise no_match(source, matched, scan, before)
    return Source(source, anchor, files)


def _add_file(files: Files, path: str) -> bool:
    """Takes a file, whether it is there or not; false where it is a folder."""
    try:
        # A Path for each of a million files would take longer than the call.
        info = os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):
        files.add(path)
        return True
    if stat.S_ISDIR(info.st_mode):
        return False
    files.add(path, info.st_size, info.st_mtime_ns)
    return True


def _add_runs(files: Files, found: Iterable[Run], scan: Scan, source: str) -> int:
    """Takes what is wanted of some files below a source; how many were looked at."""
    skip, count, doubtful = len(source.rstrip("/")) + 1, 0, Doubtful()
    for run in found:
        count += len(run.entries)
        own = own_files([e.path for e in run.entries]) if run.marked else repeat(False)
        for entry, is_own in zip(run.entries, own, strict=False):
            path, odd = entry.path, _oddity(entry, scan)
            if odd is not None:
                scan.left_out.add(odd, path)
            elif scan.takes(path, path[skip:], doubtful, own=is_own):
                _add_file(files, path)
    for path, *_ in scan.pictures(doubtful, LOCAL_LIMIT):
        _add_file(files, path)
    return count


def _oddity(entry: os.DirEntry[str], scan: Scan) -> str | None:
    """Why something cannot be opened to see whether it is a picture; None of a common file.

    What is named as an input is one in any case, and fails.
    """
    if entry.is_file(follow_symlinks=False) or entry.name.lower().endswith(scan.endings):
        return None
    if not posixpath.exists(entry.path):
        return "broken_links"
    return None if posixpath.isfile(entry.path) else "special_files"
