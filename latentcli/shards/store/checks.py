"""Says when a reader compares shards with what their commit records say of them."""

from __future__ import annotations

from latentcli.core.errors import UsageError
from latentcli.shards.storage.paths import AnyPath
from latentcli.shards.store.manifest import Manifest

CHECKS = ("none", "open")
"""When a shard's digest is compared with its commit record: never, or before it is opened."""


def checked(check: str, path: AnyPath, manifest: Manifest | None) -> str:
    """The value of `check`, for a store or a single shard; UsageError where it cannot be."""
    if check not in CHECKS:
        raise UsageError(f"check is {check!r}; allowed are {' and '.join(CHECKS)}.")
    if check != "none" and manifest is None:
        raise UsageError(
            f"check={check!r} compares shards with their commit records, and {path} is a single"
            " shard without one: open its store."
        )
    return check
