"""Fetches whole shards of a remote store, one after another, for a stream."""

from __future__ import annotations

import hashlib
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

from latentcli.core.errors import StoreError
from latentcli.jobs.store.latent_store import LatentStore
from latentcli.shards.layout import FIELDS, SHARDS
from latentcli.shards.storage.byte_stream import RANGE, open_stream
from latentcli.shards.storage.paths import AnyPath, reading
from latentcli.shards.store.commit import read_record
from latentcli.shards.store.presence import repair_advice


class FetchedShards(AbstractContextManager["FetchedShards"]):
    """Copies of whole remote shards, in temporary files: the one in use, and the next one.

    A shard is asked for in ranges, one after another, rather than tensor by tensor.
    """

    def __init__(self, store: AnyPath, check: str) -> None:
        self._store, self._check = store, check
        self._folder = tempfile.TemporaryDirectory(prefix="latentcli-stream-")
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="latentcli-next-shard")
        self._coming: dict[int, Future[LatentStore]] = {}

    def unit(self, unit: int, following: int | None) -> LatentStore:
        """What holds the samples of a unit; `following` is the one that will be asked for next.

        StoreError where it is missing or damaged.
        """
        for other in [other for other in self._coming if other not in (unit, following)]:
            self._drop(other)
        for wanted in (unit, following):
            if wanted is not None and wanted not in self._coming:
                self._coming[wanted] = self._thread.submit(self._fetch, wanted)
        return self._coming[unit].result()

    def _drop(self, unit: int) -> None:
        future = self._coming.pop(unit)
        if not future.cancel():
            # Its files are still mapped where they are used; a name is not needed for that.
            future.exception()
        for path in Path(self._folder.name).glob(f"{unit:06d}.*"):
            path.unlink()

    def _fetch(self, unit: int) -> LatentStore:
        record = read_record(self._store, unit)
        folder, digest = Path(self._folder.name), record.sha256
        suffix = Path(record.shard).suffix
        shard = self._copy(record.shard, folder / f"{unit:06d}{suffix}", record.bytes, digest)
        if record.fields is not None:
            of = record.fields
            self._copy(of.file, folder / f"{unit:06d}{FIELDS}", of.bytes, of.sha256)
        return LatentStore(shard)

    def _copy(self, name: str, local: Path, size: int, sha256: str) -> Path:
        path, digest = self._store / SHARDS / name, hashlib.sha256()
        with reading(path), open_stream(path, size) as stream, local.open("wb") as file:
            while block := stream.read(RANGE):
                file.write(block)
                if self._check == "open":
                    digest.update(block)
        if self._check == "open" and digest.hexdigest() != sha256:
            raise StoreError(
                f"{path} is not what was written: its sha256 differs from the record's."
                f" {repair_advice(self._store)}"
            )
        return local

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._coming.clear()
        self._folder.cleanup()
