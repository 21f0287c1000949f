"""Finds out what a shard holds from itself, without its commit record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from latentcli.core.errors import StoreError
from latentcli.core.types import Row
from latentcli.shards.storage.json_fields import from_object, to_object
from latentcli.shards.store.shard_file import ShardFile
from latentcli.shards.tar.shard import TarShard


def unit_of_shard(shard: ShardFile) -> int:
    """The unit that a shard says it is; StoreError where it is no shard of a latent store."""
    unit = shard.metadata.get("unit", "")
    if shard.metadata.get("format") != "latentcli" or not unit.isdecimal():
        raise StoreError(
            f"{shard.path} is not a shard of a latent store: its metadata do not say so. Name a"
            " store folder, or a shard that latentcli wrote."
        )
    return int(unit)


def rows_of_shard(shard: ShardFile) -> dict[str, Row]:
    """Rows of a shard without its commit record: the keys, and the shapes of their first parts.

    A tar knows more of its samples, and their order.
    """
    rows: dict[str, Row] = {}
    for name, entry in shard.entries.items():
        key = name.rpartition("/")[0]
        if key not in rows and len(entry.shape) in (3, 4):
            rows[key] = Row(key=key, source="", status="ok", latent_shape=entry.shape)
    if isinstance(shard, TarShard):
        return {
            key: _with_document(shard, rows[key], document) for key, document in shard.documents()
        }
    return dict(sorted(rows.items()))


def _with_document(shard: TarShard, row: Row, document: Mapping[str, Any]) -> Row:
    """The row with what a sample's document says of it."""
    known = to_object(row) | {"latent_shape": list(row.latent_shape or ())}
    fields = {name: value for name, value in document.items() if value is not None}
    try:
        return from_object(Row, known | fields | {"key": row.key, "status": "ok"})
    except ValueError as error:
        raise StoreError(f"{shard.path} is damaged: {row.key!r} has {error}.") from error
