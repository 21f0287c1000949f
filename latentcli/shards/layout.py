"""Names the files of a store."""

from __future__ import annotations

import re
from collections.abc import Iterable

from latentcli.shards.storage.paths import AnyPath

MANIFEST = "manifest.json"
INPUTS = "inputs.jsonl"
SOURCES = "sources.json"
"""Where the inputs lie."""
FAILURES = "failures.jsonl"
SHARDS = "shards"
HOLDERS = ("holder.json", "lease.json")
"""What a job that is running keeps in the folder to say who it is."""

SUFFIXES = {"safetensors": ".safetensors", "webdataset": ".tar"}
"""Suffix of the shards of each output format."""

FIELDS = ".fields.jsonl"
"""Suffix of the file that has the captions and other fields of a unit's samples."""

GONE = ".gone"
"""Suffix of the file, under a second name, that marks a unit which the list is about to lose."""

_RECORD = re.compile(r"(\d{6,})\.json")
_SECOND = re.compile(r"(\d{6,})\.1\.")


def shard_name(unit: int, suffix: str = ".safetensors") -> str:
    """File name of a unit's shard; `suffix` is one of SUFFIXES."""
    return f"{unit:06d}{suffix}"


def second_name(unit: int, suffix: str) -> str:
    """File name of a shard that is about to take the place of one."""
    return f"{unit:06d}.1{suffix}"


def shard_path(store: AnyPath, unit: int, suffix: str = ".safetensors") -> AnyPath:
    """A unit's shard, as it is named while nothing is about to take its place."""
    return store / SHARDS / shard_name(unit, suffix)


def record_path(store: AnyPath, unit: int) -> AnyPath:
    """A unit's commit record."""
    return store / SHARDS / f"{unit:06d}.json"


def file_names(folder: AnyPath) -> list[str]:
    """Names of the files in a folder; none where there is no folder."""
    try:
        return [path.name for path in folder.iterdir()]
    except FileNotFoundError:
        return []


def second_units(names: Iterable[str]) -> list[int]:
    """Units of which one of these files has the second name, ascending."""
    matches = (_SECOND.match(name) for name in names)
    return sorted({int(match[1]) for match in matches if match})


def record_unit(name: str) -> int | None:
    """The unit whose commit record a file of this name is; None where it is none."""
    match = _RECORD.fullmatch(name)
    return int(match[1]) if match else None


def recorded_units(store: AnyPath) -> list[int]:
    """Units that have a file with the name of a commit record, ascending."""
    units = (record_unit(path.name) for path in (store / SHARDS).glob("*.json"))
    return sorted(unit for unit in units if unit is not None)
