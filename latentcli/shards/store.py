"""A folder and a spec in, a store that may be written out; at the end, its totals and failures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from latentcli.core.errors import StoreError
from latentcli.shards.commit import CommitRecord, read_record
from latentcli.shards.documents import one_line
from latentcli.shards.layout import FAILURES, MANIFEST, SHARDS
from latentcli.shards.manifest import (
    Manifest,
    Totals,
    differing_fields,
    read_manifest,
    spec_hash,
    write_manifest,
)
from latentcli.shards.rows import row_to_json
from latentcli.shards.write import (
    TEMPORARY,
    atomic_write,
    remove_temporary,
    sync_folder,
    write_error,
)

_SHOWN = 8


class ChannelFold(Protocol):
    """Merges the channel sums of commit records, in the order of the units."""

    def merge_json(self, sums: Mapping[str, Any]) -> None:
        """Takes one record's sums in."""

    def summary(self) -> Mapping[str, Any] | None:
        """Per-channel mean and std, or None where no sums came."""


def check_folder(store: Path, spec: Mapping[str, Any]) -> bool:
    """Whether a job would start a new store here (true) or go on with one (false).

    Reads only. StoreError where the folder holds something else, or a store of another spec.
    """
    if store.exists() and not store.is_dir():
        raise StoreError(f"{store} is a file: a latent store is a folder.")
    if not (store / MANIFEST).exists():
        _check_empty(store)
        return True
    manifest = read_manifest(store)
    if manifest.spec_hash != spec_hash(spec):
        raise StoreError(_mismatch(store, manifest.spec, spec))
    return False


def _check_empty(store: Path) -> None:
    names = sorted(path.name for path in store.iterdir()) if store.exists() else []
    # A job killed within its first moments leaves no more than such a file.
    foreign = [name for name in names if not name.startswith(TEMPORARY)]
    if foreign:
        raise StoreError(
            f"{store} is not empty and no latent store (it holds {', '.join(foreign[:3])}"
            f"{' and more' if len(foreign) > 3 else ''}): nothing was changed in it; choose"
            " another output folder (-o)."
        )


def _mismatch(store: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    if ("clips" in old) != ("clips" in new):
        there, now = ("clips", "images") if "clips" in old else ("images", "clips")
        return (
            f"{store} holds latents of {there}, and the inputs given now are {now}. Choose another"
            " output folder (-o); nothing was changed in it."
        )
    fields = differing_fields(old, new)
    shown = "; ".join(f"{name} is {a!r} there and {b!r} now" for name, a, b in fields[:_SHOWN])
    more = f"; and {len(fields) - _SHOWN} more" if len(fields) > _SHOWN else ""
    return (
        f"{store} was made with other options: {shown}{more}. Use the same options to go on with"
        " it, or another output folder (-o); nothing was changed in it."
    )


def open_for_writing(store: Path, manifest: Manifest) -> bool:
    """Makes the folder a store, or checks that it is one of the manifest's spec; true if new.

    The manifest of a new store is written with the status running; that of an old one stays.
    Temporary files of a killed run are dropped, nothing else is ever deleted. Call it under the
    store's lock. StoreError as `check_folder`.
    """
    new = check_folder(store, manifest.spec)
    try:
        store.mkdir(parents=True, exist_ok=True)
        if new:
            sync_folder(store.parent)
            write_manifest(store, replace(manifest, status="running"))
        (store / SHARDS).mkdir(exist_ok=True)
        sync_folder(store)
        remove_temporary(store)
    except OSError as error:
        raise write_error(store, error) from error
    return new


def records(store: Path, units: int, spec_hash: str) -> Iterator[CommitRecord]:
    """Commit records of units 0 to `units`, one at a time; StoreError where one is not done."""
    for unit in range(units):
        record = read_record(store, unit)
        if record.spec_hash != spec_hash:
            raise StoreError(f"unit {unit} of {store} was made with another spec.")
        yield record


def finish(store: Path, manifest: Manifest, units: int, channels: ChannelFold) -> Manifest:
    """Writes failures.jsonl and the final manifest, from the commit records of all `units`.

    Records are read one at a time. Returns the manifest: that given, with status complete,
    totals, and the channels' summary. StoreError where a unit is not done.
    """
    totals = Totals()

    def failures() -> Iterator[bytes]:
        nonlocal totals
        for record in records(store, units, manifest.spec_hash):
            totals = added(totals, record)
            if record.channels is not None:
                channels.merge_json(record.channels)
            for row in record.rows:
                if row.status == "failed":
                    yield one_line({"unit": record.unit} | row_to_json(row)).encode() + b"\n"

    atomic_write(store / FAILURES, failures())
    done = replace(manifest, status="complete", totals=totals, channels=channels.summary())
    write_manifest(store, done)
    return done


def added(totals: Totals, record: CommitRecord) -> Totals:
    """Totals with one more unit in them."""
    return Totals(
        inputs=totals.inputs + record.inputs,
        encoded=totals.encoded + record.encoded,
        failed=totals.failed + record.failed,
        shards=totals.shards + 1,
        bytes=totals.bytes + record.bytes,
    )
