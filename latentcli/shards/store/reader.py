"""Reads rows and tensors by key from a store, or from one shard of it."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from latentcli.core.cached import cached
from latentcli.core.errors import StoreError
from latentcli.core.types import Member, Row
from latentcli.shards.keys import KeyIndex
from latentcli.shards.layout import (
    FIELDS,
    SHARDS,
    file_names,
    record_path,
    recorded_units,
    shard_name,
)
from latentcli.shards.storage.hub import fetch, here, is_pinned, pinned
from latentcli.shards.storage.paths import AnyPath, reading
from latentcli.shards.store.checks import checked
from latentcli.shards.store.commit import read_record
from latentcli.shards.store.fields import FieldsFile, iter_fields
from latentcli.shards.store.manifest import Manifest, read_manifest
from latentcli.shards.store.open_shards import OpenShard, ShardCache
from latentcli.shards.store.presence import Presence, presence_of, repair_advice
from latentcli.shards.store.roots import Roots, read_roots
from latentcli.shards.store.shard_digest import difference
from latentcli.shards.store.shard_file import ShardFile, open_shard
from latentcli.shards.store.shard_rows import rows_of_shard, unit_of_shard
from latentcli.shards.store.stacked import Stack, by_unit
from latentcli.shards.tar.shard import TarShard

if TYPE_CHECKING:
    from torch import Tensor

_OPEN_RECORDS = 8


class StoreReader:
    """A store, or one shard of it as a store of one unit: rows and tensors by key.

    Of a store that a job still writes to, the units done when it was opened are seen. Units that
    are damaged or missing are passed over; `presence` tells of them. Memory is 12 bytes a key,
    from the first look-up by key on, and a few open shards. A copy sent to another process opens
    its own files.

    With `check` "open" a shard's sha256 is compared with its commit record the first time that a
    process opens it, which reads it once more; "none" trusts the disk. StoreError where there is
    no store or shard, or it is damaged; UsageError for another `check`, and for one of a single
    shard, which has no record.
    """

    def __init__(self, path: AnyPath, check: str = "none") -> None:
        with reading(path):
            path = pinned(path)
        self.path = path
        self.manifest: Manifest | None = None if path.is_file() else read_manifest(path)
        """The store's description; None where a single shard was opened."""
        self._check = checked(check, path, self.manifest)
        self._sound: set[tuple[int, int]] = set()
        """Shards whose digest was found right, by process and unit."""
        self._shards = ShardCache()
        self._records: OrderedDict[int, dict[str, Row]] = OrderedDict()
        self._recorded = (
            recorded_units(path) if self.manifest else [unit_of_shard(open_shard(path))]
        )
        self._closely = False
        self._moving: dict[int, str] = {}
        """Names of shards that are about to take the place of others."""
        self._fields: dict[int, str] = {}
        """Names of the files of fields, once the records have been read."""
        self._fields_files: dict[int, FieldsFile] = {}
        self._roots = read_roots(path) if self.manifest else Roots()

    @cached
    def presence(self) -> Presence:
        """What of the store is there; all of it in a single shard.

        A damaged commit record is known of once it was read, or all were by `look_closely`.
        """
        if self.manifest is None:
            return Presence(self._recorded, sum(row.status == "ok" for row in self.rows()))
        return presence_of(self.path, self.manifest, self._recorded)

    def look_closely(self) -> Presence:
        """`presence`, for which every commit record has been read."""
        if self.manifest is not None and not self._closely:
            self._closely = True
            self.presence = presence_of(self.path, self.manifest, self._recorded, closely=True)
        return self.presence

    def misses_fields(self) -> bool:
        """Whether a file of captions and other fields is gone, of the units read so far."""
        names = set(file_names(self.path / SHARDS)) if self._fields else set[str]()
        return not names.issuperset(self._fields.values())

    @property
    def units(self) -> Sequence[int]:
        """Units that can be read, ascending."""
        return self._recorded if self.manifest is None else self.presence.units

    @cached
    def metadata(self) -> dict[str, str]:
        """The strings by which the shards describe themselves; empty where nothing is done.

        StoreError where every shard is damaged.
        """
        damage: StoreError | None = None
        for unit in self.units:
            try:
                found = dict(self._shard(unit).file.metadata)
            except StoreError as error:
                damage = damage or error
                continue
            if found:  # a tar of no samples says nothing
                return found
        if damage is not None:
            raise damage
        return {}

    def rows(self) -> Iterator[Row]:
        """Rows of all inputs, failed ones too, in the order of the input list."""
        return (row for _, rows in self.rows_by_unit() for row in rows)

    def rows_by_unit(self) -> Iterator[tuple[int, list[Row]]]:
        """(unit, its rows) of every unit that can be read, ascending.

        One whose record turns out damaged is passed over, and told of in `presence` from then on.
        """
        if self.manifest is not None:
            fetch(record_path(self.path, unit) for unit in self.units)
        for unit in self.units:
            try:
                rows = self.unit_rows(unit)
            except StoreError:
                if self.manifest is None or unit not in self.look_closely().damaged:
                    raise
                continue
            yield unit, rows

    def unit_rows(self, unit: int) -> list[Row]:
        """Rows of one unit, in order, read anew; also of a damaged one whose record is sound."""
        return list(self._rows(unit).values())

    def keys(self) -> Iterator[str]:
        """Keys that have latents, in the order of the input list."""
        return (row.key for row in self.rows() if row.status == "ok")

    def __iter__(self) -> Iterator[str]:
        return self.keys()

    def __len__(self) -> int:
        return self.presence.encoded

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._find(key, lambda row: row.status == "ok") is not None

    def row(self, key: str) -> Row:
        """What became of an input; StoreError for an unknown key."""
        found = self._find(key, lambda row: True)
        if found is None:
            raise StoreError(f"{self.path} has no key {key!r}{self._but()}.")
        return found

    def _but(self) -> str:
        """What may be why a key is not there."""
        if self.presence.is_whole:
            return ""
        return f", but it is not complete ({self.presence.describe()})"

    def tensors(self, key: str, unit: int | None = None, *, copy: bool = True) -> dict[str, Tensor]:
        """The tensors of a key by their full names; StoreError where it is unknown or failed.

        They are copies, so keeping them keeps no file open. Records are not read for this, which
        makes it quick in any order. `unit` is that of the key, where it is known. Without `copy`
        they may be the mapped file itself: to be read at once, and never to be written to.
        """
        for number in self._units_of(key, unit):
            shard = self._shard(number)
            if key in shard.names:
                found = {name: shard.file.tensor(name) for name in shard.names[key]}
                return {name: t.clone() for name, t in found.items()} if copy else found
        raise self._without_latent(key)

    def _without_latent(self, key: str) -> StoreError:
        row = self.row(key)
        return StoreError(f"{key!r} has no latent in {self.path}: {row.stage}: {row.error}.")

    def names(self, key: str, unit: int) -> list[str]:
        """The names of a key's tensors without the key; StoreError where it has none."""
        found = self._shard(unit).names.get(key)
        if found is None:
            raise self._without_latent(key)
        return [name[len(key) + 1 :] for name in found]

    def stacked(
        self, keys: Sequence[str], units: Sequence[int], names: Mapping[str, Sequence[str]]
    ) -> dict[str, Tensor]:
        """Tensors of many samples, each [N, ...]: of sample i, what `names` has at i.

        Names are without the key. Each shard is looked up once. StoreError where a sample has no
        tensor of its name, or their dtypes or shapes differ.
        """
        stacks = {column: Stack(len(keys)) for column in names}
        for unit, places in by_unit(units):
            file = self._shard(unit).file
            file.copy_into(
                [
                    stack.room(place, file, f"{keys[place]}/{names[column][place]}")
                    for column, stack in stacks.items()
                    for place in places
                ]
            )
        return {column: stack.values for column, stack in stacks.items()}

    def others(
        self, key: str, wanted: Callable[[str], bool] = bool, unit: int | None = None
    ) -> tuple[Member, ...]:
        """The members passed on with a key, in their order; none where shards are no tars.

        Only those are read whose field is wanted.
        """
        for number in self._units_of(key, unit):
            shard = self._shard(number)
            if key in shard.names and isinstance(shard.file, TarShard):
                return shard.file.others(key, wanted)
        return ()

    def let_go(self, unit: int) -> None:
        """Closes a unit's shard, so that what was read of it is no longer held; for one pass."""
        self._shards.drop(unit)

    def has_members(self, unit: int) -> bool:
        """Whether a unit's shard is a tar, which has other members of its samples."""
        return isinstance(self._shard(unit).file, TarShard)

    def recorded_fields(self, key: str, unit: int | None = None) -> dict[str, Any]:
        """The fields of a key that are in a file beside its shard; {} where it has none there.

        StoreError for an unknown key, or a damaged file. A file is read once a process, and then
        holds 20 bytes a key.
        """
        units = self._units_of(key, unit)
        if not units:
            self.row(key)
        files = (self._fields_file(number) for number in units)
        return next((found for file in files if file and (found := file.get(key))), {})

    def unit_recorded_fields(self, unit: int) -> dict[str, dict[str, Any]]:
        """The fields of all keys of a unit that are in a file beside its shard, read at once.

        StoreError where the file is damaged. The unit's rows have to be read before.
        """
        path = self._fields_path(unit)
        if path is None:
            return {}
        if self._check == "open" and unit not in self._fields_files:
            self._compare(unit, "fields")
        with reading(path):
            return dict(iter_fields(here(path)))

    def _fields_path(self, unit: int) -> AnyPath | None:
        if self.manifest is None:
            return self._beside
        name = self._fields.get(unit)
        return None if name is None else self._place(name, shard_name(unit, FIELDS))

    def recorded_fields_of(self, keys: Sequence[str], units: Sequence[int]) -> list[dict[str, Any]]:
        """`recorded_fields` of many keys, each file of which is opened once."""
        found: list[dict[str, Any]] = [{} for _ in keys]
        for unit, places in by_unit(units):
            file = self._fields_file(unit)
            if file:
                own = file.many([keys[place] for place in places])
                for place, fields in zip(places, own, strict=True):
                    found[place] = fields
        return found

    def _fields_file(self, unit: int) -> FieldsFile | None:
        known = self._fields_files.get(unit)
        if known is not None and known.is_settled:
            return known
        path, usual = self._beside, shard_name(unit, FIELDS)
        if self.manifest is not None:
            name = self._fields.get(unit)
            path = None if name is None else self._place(name, usual)
        if path is None or (known is not None and known.path == path):
            return known if path is not None else None
        if self._check == "open":
            self._compare(unit, "fields")
        settled = self.manifest is None or path.name == usual
        with reading(path):
            self._fields_files[unit] = FieldsFile(here(path), is_settled=settled)
        return self._fields_files[unit]

    @cached
    def _beside(self) -> AnyPath | None:
        """The file of the fields of a single shard, where there is one."""
        path = self.path.with_name(f"{self.path.stem}{FIELDS}")
        return path if self.manifest is None and path.is_file() else None

    def frames(
        self, key: str, start: int, stop: int, part: str = "latent", unit: int | None = None
    ) -> Tensor:
        """Frames `start` to `stop` of a clip's part, [n, C, h, w]; reads no more than those.

        StoreError where there is no such part.
        """
        shard = self._holder(key, part, unit)
        if shard is None:
            raise StoreError(f"{self.path} has no {part} of {key!r}.")
        return shard.file.rows(f"{key}/{part}", start, stop)

    def has_part(self, key: str, part: str, unit: int | None = None) -> bool:
        """Whether a key has a tensor of this name."""
        return self._holder(key, part, unit) is not None

    def _holder(self, key: str, part: str, unit: int | None) -> OpenShard | None:
        shards = (self._shard(number) for number in self._units_of(key, unit))
        return next((s for s in shards if f"{key}/{part}" in s.names.get(key, ())), None)

    def _units_of(self, key: str, unit: int | None) -> Sequence[int]:
        return self._index.units(key) if unit is None else (unit,)

    @cached
    def _index(self) -> KeyIndex:
        return KeyIndex((row.key, unit) for unit, rows in self.rows_by_unit() for row in rows)

    def _find(self, key: str, accept: Callable[[Row], bool]) -> Row | None:
        for unit in self._index.units(key):
            row = self._record(unit).get(key)
            if row is not None and accept(row):
                return row
        return None

    def _rows(self, unit: int) -> dict[str, Row]:
        """A unit's rows by key, read anew: for passes over the whole store."""
        if self.manifest is None:
            return rows_of_shard(self._shard(unit).file)
        record = read_record(self.path, unit, self._roots)
        if record.shard != shard_name(unit, self.manifest.suffix):
            self._moving[unit] = record.shard
        if record.fields is not None:
            self._fields[unit] = record.fields.file
        return {row.key: row for row in record.rows}

    def _record(self, unit: int) -> dict[str, Row]:
        """A unit's rows by key, of which the lately used ones are kept."""
        if unit not in self._records:
            self._records[unit] = self._rows(unit)
            if len(self._records) > _OPEN_RECORDS:
                self._records.popitem(last=False)
        self._records.move_to_end(unit)
        return self._records[unit]

    def _shard(self, unit: int) -> OpenShard:
        return self._shards.get(unit, self._open)

    def _open(self, unit: int) -> ShardFile:
        path = self.path
        if self.manifest is not None:
            usual = shard_name(unit, self.manifest.suffix)
            path = self._place(self._moving.get(unit, usual), usual)
        place = os.getpid(), unit
        if self._check == "open" and place not in self._sound:
            self._compare(unit, "shard")
            self._sound.add(place)
        with reading(path):
            path = here(path)
        return open_shard(path)

    def _place(self, recorded: str, usual: str) -> AnyPath:
        """A file of a unit by the name that its record had for it, or by the usual one."""
        path = self.path / SHARDS / recorded
        # It may have got its usual name since the record was read.
        return path if recorded == usual or path.exists() else self.path / SHARDS / usual

    def _compare(self, unit: int, what: str) -> None:
        """StoreError where a unit's shard, or its fields, are not what was written."""
        record = read_record(self.path, unit)
        name, size, sha256 = record.shard, record.bytes, record.sha256
        if what == "fields" and record.fields is not None:
            name, size, sha256 = record.fields.file, record.fields.bytes, record.fields.sha256
        path = self.path / SHARDS / name
        with reading(path):
            path = here(path)
        found = difference(path, size, sha256)
        if found is not None:
            downloaded = "Delete it: it is then downloaded again."
            advice = downloaded if is_pinned(self.path) else repair_advice(self.path)
            raise StoreError(f"{found[1]} {advice}")

    def __getstate__(self) -> dict[str, Any]:
        fresh: dict[str, Any] = {"_records": OrderedDict(), "_fields_files": {}, "_sound": set()}
        return self.__dict__ | fresh
