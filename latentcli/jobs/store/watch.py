"""Finds out from a store alone how far the job is that writes to it, and who that is.

It takes no lock and writes nothing. Of each commit record it reads the beginning, once.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from latentcli.core.errors import StoreError
from latentcli.core.json_values import rounded_value
from latentcli.jobs.store.list_size import ListSize, list_size
from latentcli.jobs.store.watch_config import WatchJob
from latentcli.jobs.store.writer import Writer, WriterWatch
from latentcli.shards.layout import INPUTS, SHARDS, record_unit
from latentcli.shards.storage.paths import AnyPath, path_of, read_part, reading
from latentcli.shards.store.manifest import Manifest, read_manifest

RUNNING, STOPPED, COMPLETE = "running", "stopped", "complete"
PERIOD, REMOTE_PERIOD = 2.0, 30.0
"""Seconds between two looks at a folder, and at a URL."""
MINUTE = 60.0
"""Seconds that the rate looks back."""

SHORTEST = 1e-3
"""Seconds without which there is no rate."""

_HEAD = 1024
"""Bytes of a commit record that hold its counts, whatever its rows are."""
_COUNTS = re.compile(
    rb'"bytes":\s*(\d+).*?"inputs":\s*(\d+),\s*"encoded":\s*(\d+),\s*"failed":\s*(\d+)', re.DOTALL
)
_AT_ONCE = 16

Mark = tuple[int, ...]
"""What tells a file from another one that took its place."""


@dataclass(frozen=True, slots=True)
class Written:
    """What the beginning of a commit record says of its unit."""

    time: float
    """When it was written, in seconds since 1970 by the clock of the storage."""
    bytes: int = 0
    inputs: int = 0
    encoded: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class StoreState:
    """How far a store is."""

    store: str
    manifest: Manifest | None
    """None where a job has only just begun."""
    writer: Writer | None
    """Who writes to it; None where nobody does."""
    listed: ListSize | None
    """What there is to encode; None while nobody knows."""
    written: Sequence[Written]
    """Of the units that are there, by time."""

    @property
    def state(self) -> str:
        """RUNNING, COMPLETE, or STOPPED where nobody writes and something is left."""
        if self.writer is not None:
            return RUNNING
        complete = self.manifest is not None and self.manifest.status == "complete"
        return COMPLETE if complete else STOPPED

    @property
    def rate(self) -> float | None:
        """Inputs a second in the last minute before the last unit; None where nothing says it."""
        pace = self._pace(lambda unit: unit.inputs)
        return None if self.packed else pace

    @property
    def packed(self) -> bool:
        """Whether an input is a tar or table, which becomes a unit of many samples."""
        return self.manifest is not None and self.manifest.tars

    @property
    def eta(self) -> float | None:
        """Seconds to go; None where there is no rate, or nobody knows what there is to do."""
        listed, rate = self.listed, self.rate
        if listed is None or self.writer is None:
            return None
        left: float = listed.units - len(self.written)
        if rate is not None and not self.packed:
            left = listed.inputs - self.total("inputs")
        else:
            rate = self._pace(lambda unit: 1)
        return max(left, 0) / rate if rate else None

    def total(self, name: str) -> int:
        """The sum of a field over the units that are there."""
        return sum(getattr(unit, name) for unit in self.written)

    def _pace(self, amount: Callable[[Written], int]) -> float | None:
        if self.writer is None or not self.written:
            return None
        return pace(self.written, amount, self.writer.since)


def pace(
    written: Sequence[Written], amount: Callable[[Written], int], since: float | None
) -> float | None:
    """`amount` a second in the minute before the last unit, or since the unit before that minute.

    Units from before `since`, when the job began, are another job's. None where there is but one
    moment to go by.
    """
    last = written[-1].time
    own = [unit for unit in written if since is None or unit.time >= since]
    new = [unit for unit in own if unit.time > last - MINUTE]
    earlier = [unit.time for unit in own if unit.time <= last - MINUTE]
    begin = earlier[-1] if earlier else since
    if begin is None and new:
        begin, new = new[0].time, new[1:]
    if begin is None or last - begin < SHORTEST or not new:
        return None
    return sum(map(amount, new)) / (last - begin)


class StoreWatch:
    """Looks at a store again and again; each look reads only what is new since the last."""

    def __init__(self, store: AnyPath) -> None:
        self.store = store
        self._writer = WriterWatch(store)
        self._written: dict[int, tuple[Mark, Written]] = {}
        self._folder: list[int] = []
        """When the folder of shards had changed, at the last two looks."""
        self._list: tuple[Mark, ListSize] | None = None

    def look(self) -> StoreState:
        """How far the store is now; StoreError where there is none, or it cannot be read."""
        # The writer first: it leaves when the manifest says that all is done.
        writer = self._writer.look()
        try:
            manifest = read_manifest(self.store)
        except StoreError:
            if writer is None:
                raise
            manifest = None
        self._look_at_records()
        written = sorted((unit for _, unit in self._written.values()), key=lambda unit: unit.time)
        return StoreState(str(self.store), manifest, writer, self._listed(manifest), written)

    def _look_at_records(self) -> None:
        if self._is_unchanged():
            return
        found = dict(records(self.store / SHARDS))
        self._written = {u: known for u, known in self._written.items() if u in found}
        new = [u for u, mark in found.items() if self._written.get(u, ((),))[0] != mark]
        paths = [self.store / SHARDS / f"{unit:06d}.json" for unit in new]
        with ThreadPoolExecutor(1 if isinstance(self.store, Path) else _AT_ONCE) as pool:
            for unit, head in zip(new, pool.map(head_of, paths), strict=True):
                if head is not None:
                    self._written[unit] = found[unit], head

    def _is_unchanged(self) -> bool:
        """Whether no file came or went; two looks must agree, as clocks of disks are coarse."""
        if not isinstance(self.store, Path):
            return False
        with suppress(OSError):
            self._folder = [*self._folder[-2:], (self.store / SHARDS).stat().st_mtime_ns]
            return len(self._folder) == 3 and len(set(self._folder)) == 1
        return False

    def _listed(self, manifest: Manifest | None) -> ListSize | None:
        path = self.store / INPUTS
        try:
            info = path.stat()
            per_unit = 1 if manifest is None else samples_per_shard(manifest)
            mark = (info.st_size, info.st_mtime_ns, per_unit)
            if self._list is None or self._list[0] != mark:
                self._list = mark, list_size(path, info.st_size, per_unit)
            return self._list[1]
        except (OSError, StoreError):
            return None  # it is not written yet


def watch_of(job: WatchJob) -> tuple[StoreWatch, float]:
    """What looks at the store of a job, and the seconds between two looks."""
    store = path_of(job.store)
    return StoreWatch(store), job.every or (PERIOD if isinstance(store, Path) else REMOTE_PERIOD)


def samples_per_shard(manifest: Manifest) -> int:
    """Inputs of a whole unit."""
    return 1 if manifest.tars else int(manifest.spec.get("write", {}).get("samples_per_shard") or 1)


def records(folder: AnyPath) -> Iterator[tuple[int, Mark]]:
    """Each unit with a commit record, and what tells its file; no file is opened for it."""
    if not isinstance(folder, Path):
        with reading(folder), suppress(FileNotFoundError):
            for path, info in folder.entries():
                unit = record_unit(path.name)
                if unit is not None and info is not None:
                    yield unit, (info.st_size, info.st_mtime_ns)
        return
    with reading(folder), suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            unit = record_unit(entry.name)
            if unit is not None:
                yield unit, (entry.inode(),)


def head_of(path: AnyPath) -> Written | None:
    """What a commit record says at its beginning; None where it is gone by now.

    A record that begins otherwise counts as a unit of which nothing is known.
    """
    try:
        info = path.stat()
        head = bytes(read_part(path, 0, min(_HEAD, info.st_size)))
    except (OSError, StoreError):
        return None
    counts = _COUNTS.search(head)
    numbers: Iterable[int] = map(int, counts.groups()) if counts else ()
    return Written(max(info.st_mtime_ns, 0) / 1e9, *numbers)


def document(state: StoreState) -> dict[str, Any]:
    """The --json document of `watch`."""
    manifest, writer, listed = state.manifest, state.writer, state.listed
    last = state.written[-1].time if state.written else None
    return {
        "store": state.store,
        "state": state.state,
        "model": None if manifest is None else manifest.model["name"],
        "media": None if manifest is None else "clips" if "clips" in manifest.spec else "images",
        "writer": None if writer is None else writer.to_json(),
        "units": {"done": len(state.written), "total": None if listed is None else listed.units},
        "inputs": {
            "done": None if state.packed else state.total("inputs"),
            "total": None if listed is None else listed.inputs,
            "exact": listed is not None and listed.exact,
        },
        "encoded": state.total("encoded"),
        "failed": state.total("failed"),
        "bytes": state.total("bytes"),
        "inputs_per_second": rounded_value(state.rate, 3),
        "eta_seconds": rounded_value(state.eta, 1),
        "last_unit": None if not last else iso(last),
    }


def iso(seconds: float) -> str:
    """Seconds since 1970 as ISO 8601, UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
