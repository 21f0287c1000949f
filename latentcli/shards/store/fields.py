"""Writes the captions and other fields of a unit's samples."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from latentcli.shards.storage.atomic_write import FileDigest, atomic_write
from latentcli.shards.storage.json_files import one_line
from latentcli.shards.storage.paths import AnyPath


def write_fields(path: AnyPath, rows: Iterable[tuple[str, Mapping[str, Any]]]) -> FileDigest:
    """Writes one JSON object a line, `key` first, in the order of the rows."""
    lines = (one_line({"key": key, **fields}).encode() + b"\n" for key, fields in rows)
    return atomic_write(path, lines)


class FieldsFile:
    """The fields of a unit's samples, by key."""

    def __init__(self, path: AnyPath) -> None:
        lines = path.read_bytes().splitlines()
        rows = [json.loads(line) for line in lines]
        self._rows = {row.pop("key"): row for row in rows}

    def get(self, key: str) -> dict[str, Any]:
        """The fields of a sample; none where it has none."""
        return dict(self._rows.get(key, {}))
