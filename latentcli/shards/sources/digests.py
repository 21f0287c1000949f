"""Takes the digests of inputs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from latentcli.shards.sources.expand import PIPE
from latentcli.shards.storage.paths import is_remote, path_of

_READERS = 4


def digest_of(source: str) -> str | None:
    """Hexadecimal sha256 of an input's bytes; None where it cannot be read, or is a command."""
    if source.startswith(PIPE):
        return None
    try:
        with path_of(source).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def digests_of(sources: Iterable[str]) -> Iterator[str | None]:
    """The digest of each, read by a few threads."""
    with ThreadPoolExecutor(_READERS) as pool:
        yield from pool.map(digest_of, sources)


def is_readable(source: str) -> bool:
    """Whether an input can be read, as far as that is quickly found out."""
    if source.startswith(PIPE) or is_remote(source):
        return True
    try:
        with Path(source).open("rb") as file:
            file.read(1)
    except OSError:
        return False
    return True
