"""A store's folder in, the paths of its files out."""

from __future__ import annotations

import re
from pathlib import Path

MANIFEST = "manifest.json"
INPUTS = "inputs.jsonl"
FAILURES = "failures.jsonl"
SHARDS = "shards"

_RECORD = re.compile(r"(\d{6,})\.json")


def shard_name(unit: int) -> str:
    """File name of a unit's shard."""
    return f"{unit:06d}.safetensors"


def shard_path(store: Path, unit: int) -> Path:
    """A unit's shard."""
    return store / SHARDS / shard_name(unit)


def record_path(store: Path, unit: int) -> Path:
    """A unit's commit record."""
    return store / SHARDS / f"{unit:06d}.json"


def recorded_units(store: Path) -> list[int]:
    """Units that have a file with the name of a commit record, ascending."""
    matches = (_RECORD.fullmatch(path.name) for path in (store / SHARDS).glob("*.json"))
    return sorted(int(match[1]) for match in matches if match)
