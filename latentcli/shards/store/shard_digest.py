"""Compares the size and digest of a unit's file with what its commit record says."""

from __future__ import annotations

import hashlib

from latentcli.shards.storage.paths import AnyPath


def difference(path: AnyPath, recorded: int, sha256: str) -> tuple[str, str] | None:
    """("size" or "digest", a sentence) where a file is not the recorded one; reads all of it.

    None too where it cannot be read: opening it says why.
    """
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            if size != recorded:
                return "size", f"{path} has {size} bytes, its commit record says {recorded}."
            if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                return (
                    "digest",
                    f"{path} is not what was written: its sha256 differs from the record's.",
                )
    except OSError:
        pass
    return None
