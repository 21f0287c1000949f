"""Reads rows and tensors by key from a store, or from one shard of it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from latentcli.core.errors import StoreError
from latentcli.core.types import Member, Row
from latentcli.shards.keys import KeyIndex
from latentcli.shards.layout import FIELDS, SHARDS, recorded_units, shard_name
from latentcli.shards.storage.json_fields import from_object, to_object
from latentcli.shards.storage.paths import AnyPath
from latentcli.shards.store.commit import read_record
from latentcli.shards.store.fields import FieldsFile
from latentcli.shards.store.manifest import Manifest, read_manifest
from latentcli.shards.store.roots import Roots, read_roots
from latentcli.shards.store.shard_file import ShardFile, open_shard
from latentcli.shards.tar.shard import TarShard

if TYPE_CHECKING:
    from torch import Tensor

_OPEN_SHARDS = 64
_OPEN_RECORDS = 8


class _Shard:
    """An open shard and its tensors' names by key."""

    def __init__(self, file: ShardFile) -> None:
        self.file = file
        self.names: dict[str, list[str]] = {}
        for name in file.names:
            self.names.setdefault(name.rpartition("/")[0], []).append(name)


Value = TypeVar("Value")


def _recent(
    cache: OrderedDict[int, Value], unit: int, make: Callable[[], Value], most: int
) -> Value:
    """The unit's entry of a cache that keeps the `most` lately used ones."""
    if unit not in cache:
        cache[unit] = make()
        if len(cache) > most:
            cache.popitem(last=False)
    cache.move_to_end(unit)
    return cache[unit]


class StoreReader:
    """A store, or one shard of it as a store of one unit: rows and tensors by key.

    Of a store that a job still writes to, the units done when it was opened are seen. Memory is
    12 bytes a key, from the first look-up by key on, and a few open shards. A copy sent to another
    process opens its own files. StoreError where there is no store or shard, or it is damaged.
    """

    def __init__(self, path: AnyPath) -> None:
        self.path = path
        self.manifest: Manifest | None = None if path.is_file() else read_manifest(path)
        """The store's description; None where a single shard was opened."""
        self._shards: OrderedDict[int, _Shard] = OrderedDict()
        self._records: OrderedDict[int, dict[str, Row]] = OrderedDict()
        self.units = recorded_units(path) if self.manifest else [_shard_unit(open_shard(path))]
        """Units that can be read, ascending."""
        self._moving: dict[int, str] = {}
        """Names of shards that are about to take the place of others."""
        self._fields: dict[int, str] = {}
        """Names of the files of fields, once the records have been read."""
        self._fields_files: dict[AnyPath, FieldsFile] = {}
        self._roots = read_roots(path) if self.manifest else Roots()

    @cached_property
    def metadata(self) -> dict[str, str]:
        """The strings by which the shards describe themselves; empty where nothing is done."""
        # A tar of no samples says nothing.
        found = (dict(self._shard(unit).file.metadata) for unit in self.units)
        return next(filter(None, found), {})

    def rows(self) -> Iterator[Row]:
        """Rows of all inputs, failed ones too, in the order of the input list."""
        for unit in self.units:
            yield from self._rows(unit).values()

    def keys(self) -> Iterator[str]:
        """Keys that have latents, in the order of the input list."""
        return (row.key for row in self.rows() if row.status == "ok")

    def __iter__(self) -> Iterator[str]:
        return self.keys()

    def __len__(self) -> int:
        return self._encoded

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._find(key, lambda row: row.status == "ok") is not None

    def row(self, key: str) -> Row:
        """What became of an input; StoreError for an unknown key."""
        found = self._find(key, lambda row: True)
        if found is None:
            raise StoreError(f"{self.path} has no key {key!r}.")
        return found

    def tensors(self, key: str) -> dict[str, Tensor]:
        """The tensors of a key by their full names; StoreError where it is unknown or failed.

        They are copies, so keeping them keeps no file open. Records are not read for this, which
        makes it quick in any order.
        """
        for unit in self._index.units(key):
            shard = self._shard(unit)
            if key in shard.names:
                return {name: shard.file.tensor(name).clone() for name in shard.names[key]}
        row = self.row(key)
        raise StoreError(f"{key!r} has no latent in {self.path}: {row.stage}: {row.error}.")

    def others(self, key: str, wanted: Callable[[str], bool] = bool) -> tuple[Member, ...]:
        """The members passed on with a key, in their order; none where shards are no tars.

        Only those are read whose field is wanted.
        """
        for unit in self._index.units(key):
            shard = self._shard(unit)
            if key in shard.names and isinstance(shard.file, TarShard):
                return shard.file.others(key, wanted)
        return ()

    def recorded_fields(self, key: str) -> dict[str, Any]:
        """The fields of a key that are in a file beside its shard; {} where it has none there.

        StoreError for an unknown key, or a damaged file. A file is read once a process, and then
        holds 20 bytes a key.
        """
        units = self._index.units(key)
        if not units:
            self.row(key)
        files = (self._fields_file(unit) for unit in units)
        return next((found for file in files if file and (found := file.get(key))), {})

    def _fields_file(self, unit: int) -> FieldsFile | None:
        path = self._beside
        if self.manifest is not None:
            name = self._fields.get(unit)
            path = None if name is None else self._place(name, shard_name(unit, FIELDS))
        if path is not None and path not in self._fields_files:
            self._fields_files[path] = FieldsFile(path)
        return None if path is None else self._fields_files[path]

    @cached_property
    def _beside(self) -> AnyPath | None:
        """The file of the fields of a single shard, where there is one."""
        path = self.path.with_name(f"{self.path.stem}{FIELDS}")
        return path if self.manifest is None and path.is_file() else None

    def frames(self, key: str, start: int, stop: int, part: str = "latent") -> Tensor:
        """Frames `start` to `stop` of a clip's part, [n, C, h, w]; reads no more than those.

        StoreError where there is no such part.
        """
        shard = self._holder(key, part)
        if shard is None:
            raise StoreError(f"{self.path} has no {part} of {key!r}.")
        return shard.file.rows(f"{key}/{part}", start, stop)

    def has_part(self, key: str, part: str) -> bool:
        """Whether a key has a tensor of this name."""
        return self._holder(key, part) is not None

    def _holder(self, key: str, part: str) -> _Shard | None:
        shards = (self._shard(unit) for unit in self._index.units(key))
        return next((s for s in shards if f"{key}/{part}" in s.names.get(key, ())), None)

    @cached_property
    def _encoded(self) -> int:
        if self.manifest is not None and self.manifest.status == "complete":
            return self.manifest.totals.encoded
        return sum(1 for _ in self.keys())

    @cached_property
    def _index(self) -> KeyIndex:
        return KeyIndex((key, unit) for unit in self.units for key in self._rows(unit))

    def _find(self, key: str, accept: Callable[[Row], bool]) -> Row | None:
        for unit in self._index.units(key):
            row = self._record(unit).get(key)
            if row is not None and accept(row):
                return row
        return None

    def _rows(self, unit: int) -> dict[str, Row]:
        """A unit's rows by key, read anew: for passes over the whole store."""
        if self.manifest is None:
            return _shard_rows(self._shard(unit).file)
        record = read_record(self.path, unit, self._roots)
        if record.shard != shard_name(unit, self.manifest.suffix):
            self._moving[unit] = record.shard
        if record.fields is not None:
            self._fields[unit] = record.fields.file
        return {row.key: row for row in record.rows}

    def _record(self, unit: int) -> dict[str, Row]:
        return _recent(self._records, unit, lambda: self._rows(unit), _OPEN_RECORDS)

    def _shard(self, unit: int) -> _Shard:
        def opened() -> _Shard:
            if self.manifest is None:
                return _Shard(open_shard(self.path))
            usual = shard_name(unit, self.manifest.suffix)
            return _Shard(open_shard(self._place(self._moving.get(unit, usual), usual)))

        return _recent(self._shards, unit, opened, _OPEN_SHARDS)

    def _place(self, recorded: str, usual: str) -> AnyPath:
        """A file of a unit by the name that its record had for it, or by the usual one."""
        path = self.path / SHARDS / recorded
        # It may have got its usual name since the record was read.
        return path if recorded == usual or path.exists() else self.path / SHARDS / usual

    def __getstate__(self) -> dict[str, Any]:
        fresh: dict[str, Any] = {"_shards": OrderedDict(), "_records": OrderedDict()}
        return self.__dict__ | fresh | {"_fields_files": {}}


def _shard_unit(shard: ShardFile) -> int:
    unit = shard.metadata.get("unit", "")
    if shard.metadata.get("format") != "latentcli" or not unit.isdecimal():
        raise StoreError(
            f"{shard.path} is no shard of a latent store: its metadata do not say so. Name a store"
            " folder, or a shard that this tool wrote."
        )
    return int(unit)


def _shard_rows(shard: ShardFile) -> dict[str, Row]:
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
