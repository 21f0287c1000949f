"""Opens a store for writing, and finishes it with its totals and failures."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from latentcli.core.errors import StoreError
from latentcli.shards.layout import FAILURES, HOLDERS, MANIFEST, SHARDS
from latentcli.shards.storage.atomic_write import (
    TEMPORARY,
    atomic_write,
    remove_temporary,
    sync_folder,
    writing,
)
from latentcli.shards.storage.json_fields import to_object
from latentcli.shards.storage.json_files import one_line
from latentcli.shards.storage.paths import AnyPath
from latentcli.shards.store.commit import CommitRecord, read_record
from latentcli.shards.store.manifest import (
    Manifest,
    Totals,
    differing_fields,
    read_manifest,
    write_manifest,
)
from latentcli.shards.store.place import check_place, is_a_file, no_place
from latentcli.shards.store.roots import NO_ROOTS, Roots, read_roots
from latentcli.shards.store.settle import settle

_SHOWN = 8
_MODEL = "model."
"""Fields of a spec that the model decides."""


class ChannelFold(Protocol):
    """Merges the channel sums of commit records, in the order of the units."""

    def merge_json(self, sums: Mapping[str, Any]) -> None:
        """Takes one record's sums in."""

    def summary(self) -> Mapping[str, Any] | None:
        """Per-channel mean and std, or None where no sums came."""


def check_folder(store: AnyPath, manifest: Manifest) -> bool:
    """Whether a job would start a new store here (true) or go on with one (false).

    Reads only. StoreError where the folder holds something else, or a store of another spec.
    """
    if is_new(store):
        return True
    there = read_manifest(store)
    if there.spec_hash != manifest.spec_hash:
        raise StoreError(_mismatch(store, there, manifest))
    return False


def is_new(store: AnyPath) -> bool:
    """Whether there is no store yet; StoreError where the folder holds something else."""
    if store.exists() and not store.is_dir():
        raise is_a_file(store)
    if isinstance(store, Path):
        check_place(store)
    if (store / MANIFEST).exists():
        return False
    _check_empty(store)
    return True


def _check_empty(store: AnyPath) -> None:
    names = sorted(path.name for path in store.iterdir()) if store.exists() else []
    # A job killed within its first moments leaves no more than such a file.
    foreign = [n for n in names if not n.startswith(TEMPORARY) and n not in HOLDERS]
    if foreign:
        raise StoreError(
            f"{store} is not empty and is not a latent store (it holds"
            f" {', '.join(foreign[:3])}{' and more' if len(foreign) > 3 else ''}): nothing was"
            " changed in it; choose another output folder (-o)."
        )


def _mismatch(store: AnyPath, old: Manifest, new: Manifest) -> str:
    there, now = kind_of(old.spec), kind_of(new.spec)
    if there != now:
        return (
            f"{store} holds latents of {there}, and the inputs given now are {now}. Choose another"
            " output folder (-o); nothing was changed in it."
        )
    fields = differing_fields(old.spec, new.spec)
    if any(name.startswith(_MODEL) for name, *_ in fields):
        return _other_model(store, old, new, [name for name, *_ in fields])
    shown = "; ".join(
        f"{name} is {a!r} in the store and {b!r} now" for name, a, b in fields[:_SHOWN]
    )
    more = f"; and {len(fields) - _SHOWN} more" if len(fields) > _SHOWN else ""
    return (
        f"{store} was made with other options: {shown}{more}. Use the same options to resume it,"
        " or another output folder (-o); nothing was changed in it."
    )


def _other_model(store: AnyPath, old: Manifest, new: Manifest, fields: Sequence[str]) -> str:
    """Names both models; how their networks differ says little to whoever gave another name."""
    there, now = (_model_of(manifest) for manifest in (old, new))
    others = [name for name in fields if not name.startswith(_MODEL)]
    besides = f" Also different: {', '.join(others[:_SHOWN])}." if others else ""
    return (
        f"{store} was made with {there}, and the model is {now} now.{besides} Use the same model"
        " to resume it, or another output folder (-o); nothing was changed in it."
    )


def _model_of(manifest: Manifest) -> str:
    """A model's name and the beginning of its weights' digest, as far as they are known."""
    weights = str(manifest.model.get("weights_sha256") or "")[:12]
    return f"{manifest.model.get('name')}{f' (weights {weights})' if weights else ''}"


def kind_of(spec: Mapping[str, Any]) -> str:
    """What a spec's inputs are, in words."""
    of = "clips" if "clips" in spec else "images"
    if not spec.get("tars"):
        return of
    kind = spec.get("kind")
    return f"tars of {of}" if kind is None else f"{kind} files of {of}"


def open_for_writing(store: AnyPath, manifest: Manifest) -> bool:
    """Makes the folder a store, or checks that it is one of the manifest's spec; true if new.

    The manifest of a new store is written with the status running; that of an old one stays.
    Temporary files of a killed run are dropped, nothing else is ever deleted. Call it under the
    store's lock. StoreError as `check_folder`.
    """
    new = check_folder(store, manifest)
    with writing(store):
        store.mkdir(parents=True, exist_ok=True)
        if new:
            if isinstance(store, Path):
                sync_folder(store.parent)
            write_first(store, replace(manifest, status="running"))
        (store / SHARDS).mkdir(exist_ok=True)
        if isinstance(store, Path):
            sync_folder(store)
        remove_temporary(store)
        if not new:
            settle(store, read_roots(store), manifest.suffix)
    return new


def write_first(store: AnyPath, manifest: Manifest) -> None:
    """Writes the manifest of a new store; NoPlaceForStore where its folder takes no file."""
    try:
        write_manifest(store, manifest)
    except StoreError as error:
        if isinstance(store, Path) and isinstance(error.__cause__, OSError):
            raise no_place(store, error.__cause__) from error
        raise


def records(store: AnyPath, units: Iterable[int], spec_hash: str) -> Iterator[CommitRecord]:
    """Commit records of these units, one at a time; StoreError where one is not done."""
    for unit in units:
        record = read_record(store, unit)
        if record.spec_hash != spec_hash:
            raise StoreError(f"unit {unit} of {store} was made with another spec.")
        yield record


def finish(
    store: AnyPath,
    manifest: Manifest,
    units: Iterable[int],
    channels: ChannelFold,
    seen: Callable[[CommitRecord], None] = lambda record: None,
) -> Manifest:
    """Writes failures.jsonl and the final manifest, from the commit records of all `units`.

    Records are read one at a time, and each is shown to `seen`. Returns the manifest: that given,
    with status complete, totals, and the channels' summary. StoreError where a unit is not done.
    """
    remove_temporary(store)  # a process of this job that was killed left them
    sums = StoreSums(channels)

    def failures() -> Iterator[bytes]:
        for record in records(store, units, manifest.spec_hash):
            seen(record)
            yield sums.add(record)

    atomic_write(store / FAILURES, failures())
    done = sums.completed(manifest)
    write_manifest(store, done)
    return done


class StoreSums:
    """Commit records in, in the order of the units; what `finish` makes of them out."""

    def __init__(self, channels: ChannelFold) -> None:
        self.totals = Totals()
        self._channels = channels
        self._failures = hashlib.sha256()

    def add(self, record: CommitRecord, roots: Roots = NO_ROOTS) -> bytes:
        """Takes a unit in; its lines of failures.jsonl, with sources relative to the roots."""
        self.totals = added(self.totals, record)
        if record.channels is not None:
            self._channels.merge_json(record.channels)
        failed = [
            {"unit": record.unit, **to_object(row), "source": roots.stored(row.source)}
            for row in record.rows
            if row.status == "failed"
        ]
        lines = b"".join(one_line(row).encode() + b"\n" for row in failed)
        self._failures.update(lines)
        return lines

    def completed(self, manifest: Manifest) -> Manifest:
        """The manifest of a store that has these units and no others."""
        channels = self._channels.summary()
        return replace(manifest, status="complete", totals=self.totals, channels=channels)

    def are_written(self, store: AnyPath, manifest: Manifest) -> bool:
        """Whether `finish` would change nothing; `manifest` is the store's as it is."""
        if self.completed(manifest) != manifest:
            return False
        try:
            with (store / FAILURES).open("rb") as file:
                return hashlib.file_digest(file, "sha256").digest() == self._failures.digest()
        except OSError:
            return False


def added(totals: Totals, record: CommitRecord) -> Totals:
    """Totals with one more unit in them."""
    return Totals(
        inputs=totals.inputs + record.inputs,
        encoded=totals.encoded + record.encoded,
        failed=totals.failed + record.failed,
        shards=totals.shards + 1,
        bytes=totals.bytes + record.bytes,
        filtered=totals.filtered + record.filtered,
    )
