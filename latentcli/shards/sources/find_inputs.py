"""Finds the inputs of a job's sources: an ordered list with keys and units."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from operator import lt

from latentcli.core.errors import UsageError
from latentcli.core.types import InputRow
from latentcli.shards.keys import TAR_SUFFIXES, folders_of, tar_keys, tar_stem, unique_keys
from latentcli.shards.sources.expand import LIST, PIPE, expand_source, joined, local_name
from latentcli.shards.sources.file_list import FoundInput, FoundInputs, Source
from latentcli.shards.sources.left_out import LeftOut
from latentcli.shards.sources.local import absolute
from latentcli.shards.sources.remote import is_web
from latentcli.shards.sources.scan import Scan
from latentcli.shards.storage.paths import is_remote

_WORDS = re.compile(r"[^\s'\"|;&<>()]+")


def find_inputs(
    sources: Sequence[str], suffixes: frozenset[str], *, allow_pipe: bool = False
) -> FoundInputs:
    """Inputs of folders (recursive), files, globs, braces, @lists and URLs, each path once.

    They are sorted by key. A key is the path relative to the deepest folder common to all
    sources, without the suffix; see `unique_keys` for clashes. `suffixes` are lower case with the
    dot. UsageError where a source does not exist or gives no input, and for a pipe: that is not
    allowed.
    """
    return inputs_of(expand_sources(sources, Scan(suffixes, allow_pipe=allow_pipe)))


def expand_sources(sources: Sequence[str], scan: Scan) -> list[Source]:
    """The files of each source; UsageError as `find_inputs`."""
    if not sources:
        raise UsageError("no source given: name a folder, a file, a glob or @list.txt.")
    # What lies in two sources is left out once.
    again = replace(scan, left_out=LeftOut())
    within = within_others(sources)
    return [
        expand_source(source, again if i in within else scan) for i, source in enumerate(sources)
    ]


def within_others(sources: Sequence[str]) -> set[int]:
    """Places of the sources whose names say that they lie in another one, or are an earlier one."""
    named = [source.rstrip("/") if is_remote(source) else _absolute(source) for source in sources]
    places = {name: i for i, name in reversed(list(enumerate(named)))}
    return {
        i
        for i, name in enumerate(named)
        if places[name] != i or not folders_of([name]).isdisjoint(places)
    }


def _absolute(source: str) -> str:
    is_word = source.startswith((PIPE, LIST, "-"))
    return source if is_word else absolute(local_name(source))


def inputs_of(expanded: Sequence[Source], *, packed: bool = False) -> FoundInputs:
    """Inputs of sources, sorted by key, each path once; of packed ones with `tar_keys`."""
    whole = expanded[0] if len(expanded) == 1 else joined("", expanded)
    files = whole.files
    if len(set(files.paths)) < len(files):
        first = {path: i for i, path in reversed(list(enumerate(files.paths)))}
        files = files.pick(sorted(first.values()))
    keys = (tar_keys if packed else unique_keys)(_relative(files.paths, whole.anchor))
    if not all(map(lt, keys, islice(keys, 1, None))):
        order = sorted(range(len(keys)), key=keys.__getitem__)
        files, keys = files.pick(order), [keys[i] for i in order]
    roots = sorted({source.anchor for source in expanded if source.anchor is not None})
    return FoundInputs(files, keys, packed=packed, anchor=whole.anchor, roots=roots)


def _relative(paths: Sequence[str], base: str | None) -> list[str]:
    """Paths below `base`, all different: a name for each, from which its key is made."""
    if base is not None and not is_remote(base):
        skip = len(base) if base.endswith("/") else len(base) + 1
        if all(map(str.startswith, paths, ("/",) * len(paths))):
            return [path[skip:] for path in paths]
    names = [_name(path, base) for path in paths]
    counts = Counter(names)
    return [
        name if counts[name] == 1 else _distinguished(name, path)
        for name, path in zip(names, paths, strict=True)
    ]


def _name(path: str, base: str | None) -> str:
    if path.startswith(PIPE):
        words: list[str] = _WORDS.findall(path.removeprefix(PIPE))
        tars = [word for word in words if word.lower().endswith(TAR_SUFFIXES)]
        return tars[-1].rpartition("/")[2] if tars else "pipe.tar"
    whole = path.partition("?")[0] if is_web(path) else path
    if base is not None and is_remote(base) == is_remote(path):
        return whole[len(base) :].removeprefix("/")
    return whole.removeprefix("/").replace("://", ":/", 1)


def _distinguished(name: str, path: str) -> str:
    stem = tar_stem(name)
    mark = hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return f"{stem}-{mark}{name[len(stem) :]}"


def unit_rows(
    found: Iterable[FoundInput], samples_per_shard: int, *, first_unit: int = 0
) -> Iterator[InputRow]:
    """Inputs in their order, `samples_per_shard` to a unit, from `first_unit` on, one at a time."""
    if samples_per_shard < 1:
        raise UsageError(f"samples per shard is {samples_per_shard}, it must be at least 1.")
    return (
        InputRow(key, path, first_unit + i // samples_per_shard, size, mtime_ns)
        for i, (path, key, size, mtime_ns) in enumerate(found)
    )


def assign_units(
    found: Sequence[FoundInput], samples_per_shard: int, *, first_unit: int = 0
) -> list[InputRow]:
    """The same as a list."""
    return list(unit_rows(found, samples_per_shard, first_unit=first_unit))
