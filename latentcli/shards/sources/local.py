"""Lists the files that a folder, file or glob of this machine means, with sizes and times."""

from __future__ import annotations

import glob
import os
import posixpath
import stat
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from itertools import takewhile
from pathlib import Path

from latentcli.core.errors import UsageError
from latentcli.shards.sources.file_list import Files, Source


def absolute(path: str) -> str:
    """Absolute path with the user's own names kept: links are resolved only in front of `..`."""
    parts = Path(path).parts
    if ".." not in parts:
        return posixpath.abspath(path)
    last = len(parts) - parts[::-1].index("..")
    return posixpath.join(posixpath.realpath(posixpath.join(*parts[:last])), *parts[last:])


def expand_path(text: str, path: str, suffixes: frozenset[str]) -> Source:
    """A file, or the files below a folder; `path` is absolute."""
    files = Files()
    anchor = add_path(files, path, suffixes)
    return Source(text, anchor, files, named=anchor != path)


def add_path(files: Files, path: str, suffixes: frozenset[str]) -> str:
    """Takes a file, or all those of these suffixes below a folder; the folder of it, or itself.

    A file need not be there: reading it will say why. UsageError where a folder holds none.
    """
    try:
        # A Path for each of a million files would take longer than the call.
        info = os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):
        files.add(path)
        return posixpath.dirname(path)
    if stat.S_ISDIR(info.st_mode):
        return _add_folder(files, path, suffixes)
    files.add(path, info.st_size, info.st_mtime_ns)
    return posixpath.dirname(path)


def _add_folder(files: Files, folder: str, suffixes: frozenset[str]) -> str:
    before, endings = len(files), tuple(suffixes)
    for entry in _entries(folder):
        if entry.name.lower().endswith(endings):
            add_path(files, entry.path, suffixes)
    if len(files) == before:
        raise no_inputs(folder, suffixes)
    return folder


def _entries(
    folder: str, above: frozenset[tuple[int, int]] = frozenset()
) -> Iterator[os.DirEntry[str]]:
    """Files below a folder, sorted by name, without hidden files and folders.

    Links to folders are followed, but never into a folder that they are inside of.
    """
    try:
        info = Path(folder).stat()
        with os.scandir(folder) as scan:
            entries = sorted(scan, key=lambda entry: entry.name)
    except OSError as error:
        raise UsageError(f"the folder {folder} cannot be listed: {error.strerror}.") from error
    here = (info.st_dev, info.st_ino)
    if here in above:
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if _is_folder(entry):
            yield from _entries(entry.path, above | {here})
        else:
            yield entry


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def expand_glob(source: str, suffixes: frozenset[str]) -> Source:
    """Files of these suffixes that a glob matches; ** is any number of folders."""
    parts = Path(source).parts
    literal = list(takewhile(lambda part: not glob.has_magic(part), parts))
    anchor, patterns = absolute(posixpath.join(".", *literal)), parts[len(literal) :]
    if ".." in patterns:
        raise UsageError(f"{source} has .. behind a wildcard: write the path without it.")
    paths = [path for path in _glob_paths(anchor, patterns) if not posixpath.isdir(path)]
    files = Files()
    for path in paths:
        if path.lower().endswith(tuple(suffixes)):
            add_path(files, path, suffixes)
    if not len(files):
        raise no_match(source, len(paths), suffixes)
    return Source(source, anchor, files)


def no_match(source: str, matched: int, suffixes: frozenset[str]) -> UsageError:
    """What to say of a glob that gives no input."""
    return UsageError(
        f"{source} matches {matched or 'no'} files and no input among them: looked for"
        f" {_names_of(suffixes)}."
    )


def no_inputs(folder: str, suffixes: frozenset[str]) -> UsageError:
    """What to say of a folder that gives no input."""
    return UsageError(
        f"{folder} holds no inputs: looked for {_names_of(suffixes)} in it and in the folders"
        " below; hidden files and folders are skipped."
    )


def _names_of(suffixes: frozenset[str]) -> str:
    """What was looked for, in words."""
    return "files ending in " + ", ".join(sorted(suffixes))


def _glob_paths(anchor: str, patterns: Sequence[str]) -> Iterator[str]:
    """Paths of a glob. From the first ** on they are matched on our own walk, which knows loops."""
    split = patterns.index("**") if "**" in patterns else len(patterns)
    for path in _simple_glob(anchor, patterns[:split]):
        if split == len(patterns):
            yield path
        elif posixpath.isdir(path):
            below = Path(path).parts
            for entry in _entries(path):
                if matches(Path(entry.path).parts[len(below) :], patterns[split:]):
                    yield entry.path


def _simple_glob(anchor: str, patterns: Sequence[str]) -> list[str]:
    if not patterns:
        return [anchor]
    # Unlike Path.glob, this leaves hidden files out.
    names = glob.glob(posixpath.join(*patterns), root_dir=anchor)  # noqa: PTH207
    return sorted(posixpath.join(anchor, name) for name in names)


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
