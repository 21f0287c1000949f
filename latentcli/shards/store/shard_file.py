"""Opens a shard in whichever of the formats it has."""

from __future__ import annotations

from latentcli.shards.layout import SUFFIXES
from latentcli.shards.storage.paths import AnyPath
from latentcli.shards.tar.shard import TarShard
from latentcli.shards.tensors.file import SafetensorsFile

ShardFile = SafetensorsFile | TarShard
"""An open shard. Its tensors are named `<key>/<part>`."""


def open_shard(path: AnyPath) -> ShardFile:
    """The shard, by the suffix of its name; StoreError where it is missing or damaged."""
    kind = TarShard if path.suffix.lower() == SUFFIXES["webdataset"] else SafetensorsFile
    return kind(path)
