"""Looks up the fields of samples in the files beside the shards of a store, or of one shard."""

from __future__ import annotations

from typing import Any

from latentcli.shards.layout import FIELDS, fields_path
from latentcli.shards.storage.paths import AnyPath
from latentcli.shards.store.fields import FieldsFile


class Sidecars:
    """The fields files of units. Each is read once a process, and then holds 20 bytes a key.

    A copy sent to another process reads them anew.
    """

    def __init__(self, path: AnyPath, is_shard: bool) -> None:
        self._path, self._is_shard = path, is_shard
        self._files: dict[int, FieldsFile | None] = {}

    def __reduce__(self) -> tuple[type, tuple[AnyPath, bool]]:
        return type(self), (self._path, self._is_shard)

    def get(self, unit: int, key: str) -> dict[str, Any]:
        """The fields of a key of a unit; {} where it has none. StoreError for a damaged file."""
        if unit not in self._files:
            path = self._path_of(unit)
            self._files[unit] = FieldsFile(path) if path.is_file() else None
        file = self._files[unit]
        return {} if file is None else file.get(key)

    def _path_of(self, unit: int) -> AnyPath:
        if self._is_shard:
            return self._path.with_name(f"{self._path.stem}{FIELDS}")
        return fields_path(self._path, unit)
