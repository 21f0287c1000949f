"""Reads the bytes of the one member that `<tar>::<member>` names."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from latentcli.core.errors import SampleError
from latentcli.shards.keys import TAR_SUFFIXES
from latentcli.shards.storage.paths import is_remote
from latentcli.shards.tar.header import shown
from latentcli.shards.tar.read import DEFAULT_LIMITS, ByteStream, TarLimits, read_members

MARK = "::"


def split_member(source: str) -> tuple[str, str | None]:
    """(tar, member) of a source; (source, None) where it names a file of its own.

    A local source names a member only where there is no file of that very name.
    """
    if MARK not in source or (not is_remote(source) and os.path.lexists(source)):
        return source, None
    splits = list(_splits(source))
    known = (pair for pair in splits if not is_remote(source) and Path(pair[0]).is_file())
    named = (pair for pair in splits if pair[0].lower().endswith(TAR_SUFFIXES))
    return next(known, None) or next(named, None) or (source, None)


def _splits(source: str) -> Iterator[tuple[str, str]]:
    at = source.find(MARK, 1)
    while at > 0:
        yield source[:at], source[at + len(MARK) :]
        at = source.find(MARK, at + 1)


def member_bytes(stream: ByteStream, member: str, limit: int | None = None) -> bytes:
    """A member's bytes, at most `limit`; SampleError of stage read where they cannot be had.

    Reads the tar up to there. Of several members of that name it is the first.
    """
    limits = TarLimits(member_bytes=DEFAULT_LIMITS.member_bytes if limit is None else limit)
    for entry in read_members(stream, limits):
        if entry.kind == "broken" or (entry.name == member and entry.problem is not None):
            raise SampleError("read", str(entry.problem))
        if entry.kind == "member" and entry.name == member:
            return entry.data
    raise SampleError("read", f"the tar has no member {shown(member)}")
