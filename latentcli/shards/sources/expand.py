"""Expands one source as a user writes it: a folder, file, glob, braces, @list, URL or pipe."""

from __future__ import annotations

import glob
import os
import posixpath
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from latentcli.core.errors import UsageError
from latentcli.shards.sources.file_list import Files, Source
from latentcli.shards.sources.local import absolute, add_path, expand_glob, expand_path
from latentcli.shards.sources.remote import expand_url, folder_of, is_pattern, look_up
from latentcli.shards.storage.paths import is_remote, path_of

PIPE = "pipe:"
"""In front of a shell command whose output is a tar."""
MOST_NAMES = 1_000_000
"""Names that the braces of one source may stand for."""

_RANGE = re.compile(r"\{(-?\d+)\.\.(-?\d+)[}.]")
# Parts that are empty, `.` or `..`, and slashes at the end.
_ODD_PARTS = re.compile(r"/\.{0,2}(?:/|$)")


def expand_source(source: str, suffixes: frozenset[str], *, allow_pipe: bool = False) -> Source:
    """Files of a folder (recursive), file, glob, brace list, @list or URL of such, or a pipe.

    `suffixes` are lower case with the dot. They choose among the files of folders and globs; a
    file that is named itself is taken whatever its suffix. What exists under the very name is
    never a pattern. UsageError where there is no file, and for pipe:COMMAND unless it is allowed.
    """
    if not source:
        raise UsageError("a source is empty: name a folder, a file, a glob or @list.txt.")
    if source.startswith(PIPE):
        return _pipes(source, allow_pipe)
    if source.startswith("@"):
        return _list(source, suffixes, allow_pipe)
    if is_remote(source):
        return _url(source, suffixes)
    named = local_name(source)
    path = absolute(named)
    if posixpath.lexists(path):
        return expand_path(source, path, suffixes)
    names = brace_names(named)
    if names is not None:
        return joined(source, _each(names, suffixes))
    if glob.has_magic(named):
        return expand_glob(named, suffixes)
    raise UsageError(
        f"{source} does not exist. A source is a folder, a file, a quoted glob or brace list, a URL"
        " of one of these, or @list.txt with one path a line."
    )


def local_name(source: str) -> str:
    """A path; of a file:// URL, the path that it names."""
    return str(path_of(source)) if source.lower().startswith(("file://", "local://")) else source


def brace_names(source: str) -> list[str] | None:
    """What shards-{000..099}.tar stands for, in order; None where a text has no such braces.

    UsageError where these are more than MOST_NAMES.
    """
    if "{" not in source:
        return None
    import braceexpand

    names = list[str]()
    # A range is made as a whole before its first name comes out, so it is measured before.
    endless = any(abs(int(b) - int(a)) > MOST_NAMES for a, b in _RANGE.findall(source))
    try:
        if not endless:
            names = list(islice(braceexpand.braceexpand(source), MOST_NAMES + 1))
    except ValueError:
        return None
    if endless or len(names) > MOST_NAMES:
        raise UsageError(f"the braces of {source} stand for more than {MOST_NAMES:,} names.")
    return None if names == [source] else names


def _each(names: Sequence[str], suffixes: frozenset[str]) -> Iterator[Source]:
    """Sources of brace names; one error for all that do not exist."""
    paths = [absolute(name) for name in names]
    missing = [
        name
        for name, path in zip(names, paths, strict=True)
        if not glob.has_magic(name) and not posixpath.lexists(path)
    ]
    if missing:
        raise _missing(missing, names)
    for name, path in zip(names, paths, strict=True):
        if posixpath.lexists(path):
            yield expand_path(name, path, suffixes)
        else:
            yield expand_glob(name, suffixes)


def _missing(missing: Sequence[str], names: Sequence[str]) -> UsageError:
    return UsageError(
        f"{missing[0]} does not exist ({len(missing):,} of the {len(names):,} names of that brace"
        " list do not)."
    )


def joined(text: str, sources: Iterable[Source]) -> Source:
    """Several sources as one: named where all were named."""
    files, named = Files(), True
    anchors: set[str] = set()
    for source in sources:
        files.extend(source.files)
        named = named and source.named
        anchors |= {source.anchor} if source.anchor is not None else set()
    return Source(text, common_anchor(anchors), files, named)


def common_anchor(anchors: Iterable[str]) -> str | None:
    """The deepest folder common to folders and URLs; / where they are in different storages."""
    found = sorted(set(anchors))
    if len(found) < 2:
        return found[0] if found else None
    schemes = {anchor.partition("://")[0] if is_remote(anchor) else "" for anchor in found}
    if schemes == {""}:
        return posixpath.commonpath(found)
    # Parts of a URL are compared as they are: a storage tells a//b from a/b.
    common = posixpath.commonprefix([anchor.split("/") for anchor in found])
    if len(schemes) > 1:
        return "/"
    return "/".join(common) if len(common) > 2 else f"{min(schemes)}://"


def _pipes(source: str, allow_pipe: bool) -> Source:
    if not allow_pipe:
        raise UsageError("pipe: runs a shell command; --allow-pipe allows it.")
    files = Files()
    for name in brace_names(source) or [source]:
        if not name.removeprefix(PIPE).strip():
            raise UsageError(f"{source} has no command: write pipe:COMMAND.")
        files.add(name)
    return Source(source, None, files, named=True)


def _url(source: str, suffixes: frozenset[str]) -> Source:
    names = brace_names(source)
    if names is None or path_of(source).exists():
        return expand_url(source, suffixes)
    files, missing = look_up([name for name in names if not is_pattern(name)])
    if missing:
        raise _missing(missing, names)
    sources = [expand_url(name, suffixes) for name in names if is_pattern(name)]
    if len(files):
        anchor = common_anchor(map(folder_of, files.paths))
        sources.append(Source(source, anchor, files, named=True))
    return joined(source, sources)


def _list(source: str, suffixes: frozenset[str], allow_pipe: bool) -> Source:
    """Files of a list. A line whose file is gone stays an input, which then fails at read."""
    name = source[1:]
    path = name if is_remote(name) else absolute(local_name(name))
    try:
        lines = path_of(path).read_bytes().removeprefix(b"\xef\xbb\xbf").splitlines()
    except OSError as error:
        raise UsageError(f"the list {name} cannot be read: {error.strerror}.") from error
    if any(b"\0" in line for line in lines):
        raise UsageError(f"{name} is no list of paths: it holds binary data.")
    names = [os.fsdecode(line) for line in lines if line.strip() and not line.startswith(b"#")]
    if not names:
        raise UsageError(f"the list {name} names no file: it needs one path a line.")
    del lines
    folder = folder_of(path) if is_remote(path) else posixpath.dirname(path)
    return _listed(source, folder, names, suffixes, allow_pipe)


def _listed(
    text: str, folder: str, names: Iterable[str], suffixes: frozenset[str], allow_pipe: bool
) -> Source:
    files, urls = Files(), list[str]()
    anchors: set[str] = set()
    sources = []
    for line in names:
        if line.startswith(PIPE):
            sources.append(_pipes(line, allow_pipe))
            continue
        name = line if line.startswith("/") or "://" not in line else local_name(line)
        if is_remote(name):
            urls.append(name)
        elif is_remote(folder) and not name.startswith("/"):
            urls.append(f"{folder}/{name}")
        else:
            path = posixpath.join(folder, name)
            path = absolute(path) if _ODD_PARTS.search(path) else path
            anchors.add(add_path(files, path, suffixes))
    listed = Source(text, common_anchor(anchors), files, named=True)
    if not urls and not sources:
        return listed
    sources += [expand_url(url, suffixes) for url in urls if url.endswith("/")]
    there, missing = look_up([url for url in urls if not url.endswith("/")])
    for url in missing:
        there.add(url)
    sources.append(Source(text, common_anchor(map(folder_of, there.paths)), there, named=True))
    whole = joined(text, [listed, *sources])
    return Source(text, whole.anchor, whole.files, named=True)
