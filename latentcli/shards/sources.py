"""One source as a user writes it in (folder, file, glob, @list); the files that it means out."""

from __future__ import annotations

import glob
import os
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import takewhile
from pathlib import Path

from latentcli.core.errors import UsageError


@dataclass(frozen=True, slots=True)
class FoundFile:
    """One file of a source."""

    path: str
    """Absolute; bytes that are no UTF-8 are surrogate escapes."""
    size: int
    """Bytes, or -1 where the file cannot be reached: reading it will say why."""
    mtime_ns: int
    """Modification time in nanoseconds, or -1."""


@dataclass(frozen=True, slots=True)
class Source:
    """The files that one source means, and the folder that their keys are relative to."""

    anchor: str
    files: list[FoundFile]


def expand_source(source: str, suffixes: frozenset[str]) -> Source:
    """Files of a folder (recursive), file, glob or @list; UsageError where there is none.

    `suffixes` are lower case with the dot. They choose among the files of folders and globs; a
    file that is named itself is taken whatever its suffix.
    """
    if not source:
        raise UsageError("a source is empty: name a folder, a file, a glob or @list.txt.")
    if source.startswith("@"):
        return _list(source[1:], suffixes)
    path = absolute(source)
    if posixpath.lexists(path):
        return _path(path, suffixes)
    if glob.has_magic(source):
        return _glob(source, suffixes)
    raise UsageError(
        f"{source} does not exist. A source is a folder, a file, a quoted glob, or @list.txt"
        " with one path a line."
    )


def absolute(path: str) -> str:
    """Absolute path with the user's own names kept: links are resolved only in front of `..`."""
    parts = Path(path).parts
    if ".." not in parts:
        return posixpath.abspath(path)
    last = len(parts) - parts[::-1].index("..")
    return posixpath.join(posixpath.realpath(posixpath.join(*parts[:last])), *parts[last:])


def _path(path: str, suffixes: frozenset[str]) -> Source:
    if not posixpath.isdir(path):
        return Source(posixpath.dirname(path), [_found(path)])
    files = [_found(entry) for entry in walk(path) if _counts(entry, suffixes)]
    if not files:
        raise UsageError(
            f"{path} holds no inputs: looked for {_names(suffixes)} in it and in the folders"
            " below; hidden files and folders are skipped."
        )
    return Source(path, files)


def _glob(source: str, suffixes: frozenset[str]) -> Source:
    parts = Path(source).parts
    literal = list(takewhile(lambda part: not glob.has_magic(part), parts))
    anchor, patterns = absolute(posixpath.join(".", *literal)), parts[len(literal) :]
    if ".." in patterns:
        raise UsageError(f"{source} has .. behind a wildcard: write the path without it.")
    paths = [path for path in _glob_paths(anchor, patterns) if not posixpath.isdir(path)]
    files = [_found(path) for path in paths if _counts(path, suffixes)]
    if not files:
        raise UsageError(
            f"{source} matches {len(paths) or 'no'} files and no input among them: looked for"
            f" {_names(suffixes)}."
        )
    return Source(anchor, files)


def _glob_paths(anchor: str, patterns: Sequence[str]) -> Iterator[str]:
    """Paths of a glob. From the first ** on they are matched on our own walk, which knows loops."""
    split = patterns.index("**") if "**" in patterns else len(patterns)
    for path in _simple_glob(anchor, patterns[:split]):
        if split == len(patterns):
            yield path
        elif posixpath.isdir(path):
            below = Path(path).parts
            for found in walk(path):
                if _matches(Path(found).parts[len(below) :], patterns[split:]):
                    yield found


def _simple_glob(anchor: str, patterns: Sequence[str]) -> list[str]:
    if not patterns:
        return [anchor]
    # Unlike Path.glob, this leaves hidden files out.
    names = glob.glob(posixpath.join(*patterns), root_dir=anchor)  # noqa: PTH207
    return sorted(posixpath.join(anchor, name) for name in names)


def _matches(names: Sequence[str], patterns: Sequence[str]) -> bool:
    if not patterns:
        return not names
    if patterns[0] == "**":
        return (
            len(patterns) == 1
            or _matches(names, patterns[1:])
            or (bool(names) and _matches(names[1:], patterns))
        )
    return bool(names) and fnmatchcase(names[0], patterns[0]) and _matches(names[1:], patterns[1:])


def _list(name: str, suffixes: frozenset[str]) -> Source:
    """Files of a list. A line whose file is gone stays an input, which then fails at read."""
    path = absolute(name)
    try:
        lines = Path(path).read_bytes().removeprefix(b"\xef\xbb\xbf").splitlines()
    except OSError as error:
        raise UsageError(f"the list {name} cannot be read: {error.strerror}.") from error
    if any(b"\0" in line for line in lines):
        raise UsageError(f"{name} is no list of paths: it holds binary data.")
    names = [os.fsdecode(line) for line in lines if line.strip() and not line.startswith(b"#")]
    if not names:
        raise UsageError(f"the list {name} names no file: it needs one path a line.")
    folder = posixpath.dirname(path)
    sources = [_path(absolute(posixpath.join(folder, name)), suffixes) for name in names]
    anchor = posixpath.commonpath({source.anchor for source in sources})
    return Source(anchor, [file for source in sources for file in source.files])


def walk(folder: str, above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[str]:
    """Paths of the files below a folder, sorted by name, without hidden files and folders.

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
            yield from walk(entry.path, above | {here})
        else:
            yield entry.path


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _found(path: str) -> FoundFile:
    try:
        info = Path(path).stat()
    except OSError:
        return FoundFile(path, -1, -1)
    return FoundFile(path, info.st_size, info.st_mtime_ns)


def _counts(path: str, suffixes: frozenset[str]) -> bool:
    return posixpath.splitext(path)[1].lower() in suffixes


def _names(suffixes: frozenset[str]) -> str:
    return "files ending in " + ", ".join(sorted(suffixes))
