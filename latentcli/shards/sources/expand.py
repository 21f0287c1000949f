"""Expands one source as a user writes it: a folder, file, glob, braces, @list, URL or pipe."""

from __future__ import annotations

import glob
import os
import posixpath
import re
import sys
from collections.abc import Iterable, Iterator, Sequence

from latentcli.core.errors import UsageError
from latentcli.core.near_names import missing_list, missing_source
from latentcli.shards.sources.braces import brace_names
from latentcli.shards.sources.file_list import Files, Source
from latentcli.shards.sources.local import absolute, add_path, expand_glob, expand_path
from latentcli.shards.sources.own_folders import refuse_shards
from latentcli.shards.sources.remote import expand_url, folder_of, is_pattern, look_up
from latentcli.shards.sources.scan import Scan
from latentcli.shards.storage.paths import is_remote, path_of

PIPE = "pipe:"
"""In front of a shell command whose output is a tar."""
LIST = "@"
"""In front of a list's path."""
STDIN_LIST = "@-"
"""The list on standard input."""
# Parts that are empty, `.` or `..`, and slashes at the end.
_ODD_PARTS = re.compile(r"/\.{0,2}(?:/|$)")


def expand_source(source: str, scan: Scan) -> Source:
    """Files of a folder (recursive), file, glob, brace list, @list or URL of such, or a pipe.

    What exists under the very name is never a pattern. UsageError where there is no file, where it
    is a latent store, and for pipe:COMMAND unless it is allowed.
    """
    if not source:
        raise UsageError("a source is empty: name a folder, a file, a glob or @list.txt.")
    found = _expanded(source, scan)
    refuse_shards(found.anchor)
    return found


def _expanded(source: str, scan: Scan) -> Source:
    if source.startswith(PIPE):
        return _pipes(source, scan.allow_pipe)
    if source.startswith(LIST):
        return _list(source, scan)
    if is_remote(source):
        return _url(source, scan)
    named = local_name(source)
    path = absolute(named)
    if posixpath.lexists(path):
        return expand_path(source, path, scan)
    names = brace_names(named)
    if names is not None:
        return joined(source, _each(source, names, scan))
    if glob.has_magic(named):
        return expand_glob(named, scan)
    raise missing_source(source)


def local_name(source: str) -> str:
    """A path; of a file:// URL, the path that it names."""
    return str(path_of(source)) if source.lower().startswith(("file://", "local://")) else source


def _each(source: str, names: Sequence[str], scan: Scan) -> Iterator[Source]:
    """Sources of brace names, the files among them as one; one error for all that do not exist."""
    paths = [absolute(name) for name in names]
    missing = [
        name
        for name, path in zip(names, paths, strict=True)
        if not glob.has_magic(name) and not posixpath.lexists(path)
    ]
    if missing:
        raise _missing(missing, names)
    files, folders = Files(), list[str]()
    for name, path in zip(names, paths, strict=True):
        if not posixpath.lexists(path):
            yield expand_glob(name, scan)
        elif posixpath.isdir(path):
            yield expand_path(name, path, scan)
        else:
            folders.append(add_path(files, path, scan))
    if folders:
        yield scan.named(Source(source, common_anchor(folders), files, named=True))


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


def _url(source: str, scan: Scan) -> Source:
    names = brace_names(source)
    if names is None or path_of(source).exists():
        return expand_url(source, scan)
    files, missing = look_up([name for name in names if not is_pattern(name)])
    if missing:
        raise _missing(missing, names)
    sources = [expand_url(name, scan) for name in names if is_pattern(name)]
    if len(files):
        anchor = common_anchor(map(folder_of, files.paths))
        sources.append(scan.named(Source(source, anchor, files, named=True)))
    return joined(source, sources)


def _list(source: str, scan: Scan) -> Source:
    """Files of a list. A name whose file is gone stays an input, which then fails at read."""
    name = source[1:]
    path = name if is_remote(name) else absolute(local_name(name))
    data = _stdin() if source == STDIN_LIST else _list_bytes(path, name)
    names = list(map(os.fsdecode, _names_of(data, name, null=scan.null)))
    if not names:
        each = "one path per line" if not scan.null else "paths that end with a NUL"
        raise UsageError(f"the list {name} names no file: it needs {each}.")
    del data
    folder = folder_of(path) if is_remote(path) else posixpath.dirname(path)
    return scan.named(_listed(source, folder, names, scan.without_patterns()))


def _list_bytes(path: str, name: str) -> bytes:
    try:
        return path_of(path).read_bytes().removeprefix(b"\xef\xbb\xbf")
    except FileNotFoundError as error:
        raise missing_list(name) from error
    except OSError as error:
        raise UsageError(f"the list {name} cannot be read: {error.strerror}.") from error


def _stdin() -> bytes:
    if sys.stdin is None or sys.stdin.closed or sys.stdin.isatty():
        raise UsageError(
            "@- reads a list of paths from standard input, which is closed or a terminal here; try"
            " find . -name '*.jpg' | latentcli ..."
        )
    return sys.stdin.buffer.read()


def _names_of(data: bytes, name: str, *, null: bool) -> list[bytes]:
    """The names in a list; one a line, unless they end with a NUL."""
    if null and b"\0" not in data and b"\n" in data.rstrip():
        raise UsageError(
            f"{name} holds no NUL and several lines: --null (-0) is for names that end with a NUL,"
            " as find -print0 writes them. Leave it out for a list with one path per line."
        )
    if null:
        return [name for name in data.split(b"\0") if name]
    if b"\0" in data:
        raise UsageError(
            f"{name} is not a list with one path per line: it holds binary data. A list of paths"
            " that end with a NUL, as find -print0 writes it, needs --null (-0)."
        )
    return [line for line in data.splitlines() if line.strip() and not line.startswith(b"#")]


def _listed(text: str, folder: str, names: Iterable[str], scan: Scan) -> Source:
    files, urls = Files(), list[str]()
    anchors: set[str] = set()
    sources = []
    for line in names:
        if line.startswith(PIPE):
            sources.append(_pipes(line, scan.allow_pipe))
            continue
        name = line if line.startswith("/") or "://" not in line else local_name(line)
        if is_remote(name):
            urls.append(name)
        elif is_remote(folder) and not name.startswith("/"):
            urls.append(f"{folder}/{name}")
        else:
            path = posixpath.join(folder, name)
            path = absolute(path) if _ODD_PARTS.search(path) else path
            anchors.add(add_path(files, path, scan))
    listed = Source(text, common_anchor(anchors), files, named=True)
    if not urls and not sources:
        return listed
    sources += [expand_url(url, scan) for url in urls if url.endswith("/")]
    there, missing = look_up([url for url in urls if not url.endswith("/")])
    for url in missing:
        there.add(url)
    sources.append(Source(text, common_anchor(map(folder_of, there.paths)), there, named=True))
    whole = joined(text, [listed, *sources])
    return Source(text, whole.anchor, whole.files, named=True)
