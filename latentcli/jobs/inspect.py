"""A store or shard in, a description of what it holds out; reads no tensor."""

from __future__ import annotations

from collections import Counter
from typing import Any

from latentcli.core.errors import StoreError
from latentcli.jobs.store import LatentStore
from latentcli.shards.place import place


def inspect_store(path: str) -> dict[str, Any]:
    """The --json document of `inspect`; StoreError where there is no store."""
    if not place(path).exists():
        raise StoreError(f"There is no {path}: name a store folder or one of its shards.")
    store = LatentStore(path)
    sizes: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    clips, frames = store.metadata.get("media") == "clips", 0
    for row in store.rows():
        if row.status == "ok" and row.latent_shape is not None:
            sizes["x".join(map(str, row.latent_shape))] += 1
            frames += row.latent_shape[0] if clips else 0
        elif row.status != "ok":
            reasons[f"{row.stage}: {row.error}"] += 1
    found = {
        "store": path,
        "media": "clips" if clips else "images",
        "encoded": sum(sizes.values()),
        "frames": frames if clips else None,
        "failed": sum(reasons.values()),
        "latent_sizes": dict(sizes.most_common()),
        "failures": dict(reasons.most_common(10)),
        "metadata": dict(store.metadata),
    }
    return found if store.manifest is None else store.manifest.to_json() | found
