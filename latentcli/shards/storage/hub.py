"""Pins stores of the Hugging Face Hub to a commit, and fetches their files into the Hub's cache.

A training loop reads every shard in every epoch. By ranges that would be a request for each sample,
which the Hub would refuse before long; so shards come whole, once, and every later epoch, process
and run finds them on this machine.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from latentcli.shards.storage.filesystem import ask
from latentcli.shards.storage.hub_files import place_of
from latentcli.shards.storage.paths import AnyPath, RemotePath

AT_ONCE = 16
"""Files that are fetched at a time."""

SCHEME = "hf://"


def pinned(path: AnyPath) -> AnyPath:
    """A path in a repository of the Hub at the commit that its branch or tag is now.

    What is read there cannot change under a reader. Other paths stay as they are. OSError where
    there is no such repository or revision.
    """
    if not is_of_hub(path) or is_pinned(path):
        return path
    found = ask(str(path), "look-up", lambda files, inner: files.pinned(inner))
    return path if found is None else RemotePath(SCHEME + found)


def is_pinned(path: AnyPath) -> bool:
    """Whether a path names a commit of a repository of the Hub."""
    if not is_of_hub(path):
        return False
    try:
        place = place_of(str(path).removeprefix(SCHEME))
    except FileNotFoundError:
        return False
    return place is not None and place.is_pinned


def here(path: AnyPath) -> AnyPath:
    """A file at a commit of the Hub as its copy in this machine's cache, made where there is none.

    Other paths stay as they are. OSError in plain words.
    """
    if not is_pinned(path):
        return path
    return Path(ask(str(path), "download", lambda files, inner: files.fetched(inner)))


def fetch(paths: Iterable[AnyPath]) -> None:
    """Does what `here` does for several files at a time; those that fail say so when they are read.

    Paths that are not at a commit of the Hub are passed over.
    """
    wanted = [path for path in paths if is_pinned(path)]
    if not wanted:
        return
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="latentcli-hub") as pool:
        for done in [pool.submit(here, path) for path in wanted]:
            done.exception()


def is_of_hub(path: AnyPath) -> bool:
    """Whether a path is on the Hub, in a repository or in a bucket."""
    return isinstance(path, RemotePath) and path.url.startswith(SCHEME)
