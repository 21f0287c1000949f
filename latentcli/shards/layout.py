"""Names the files of a store."""

from __future__ import annotations

import re

from latentcli.shards.storage.paths import AnyPath

MANIFEST = "manifest.json"
INPUTS = "inputs.jsonl"
FAILURES = "failures.jsonl"
SHARDS = "shards"
HOLDERS = ("holder.json", "lease.json")
"""What a job that is running keeps in the folder to say who it is."""

SUFFIXES = {"safetensors": ".safetensors", "webdataset": ".tar"}
"""Suffix of the shards of each output format."""

_RECORD = re.compile(r"(\d{6,})\.json")


def shard_name(unit: int, suffix: str = ".safetensors") -> str:
    """File name of a unit's shard; `suffix` is one of SUFFIXES."""
    return f"{unit:06d}{suffix}"


def shard_path(store: AnyPath, unit: int, suffix: str = ".safetensors") -> AnyPath:
    """A unit's shard."""
    return store / SHARDS / shard_name(unit, suffix)


def record_path(store: AnyPath, unit: int) -> AnyPath:
    """A unit's commit record."""
    return store / SHARDS / f"{unit:06d}.json"


def recorded_units(store: AnyPath) -> list[int]:
    """Units that have a file with the name of a commit record, ascending."""
    matches = (_RECORD.fullmatch(path.name) for path in (store / SHARDS).glob("*.json"))
    return sorted(int(match[1]) for match in matches if match)
