"""A store whose units are written anew, in each way that there is, and what is to be seen of it."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from storekit import CHANNELS, latent, manifest

from latentcli.core.errors import StoreError
from latentcli.core.types import Row
from latentcli.latents.stats import ChannelSums
from latentcli.shards.layout import SHARDS, recorded_units
from latentcli.shards.store.commit import (
    CommitRecord,
    Contents,
    commit_tar,
    commit_unit,
    read_record,
    replace_fields,
)
from latentcli.shards.store.fields import iter_fields
from latentcli.shards.store.lock import StoreLock
from latentcli.shards.store.manifest import Manifest
from latentcli.shards.store.reader import StoreReader
from latentcli.shards.store.roots import NO_ROOTS
from latentcli.shards.store.settle import delete_unit
from latentcli.shards.store.writer import finish, open_for_writing
from latentcli.shards.tar.write import TarSample


class Sample(NamedTuple):
    """What a store is to have under a key."""

    picture: str
    """What its latent is made from."""
    caption: str | None = None


Plan = Mapping[int, Mapping[str, Sample]]
"""The samples of each unit by key."""

OLD: Plan = {
    0: {"a": Sample("a", "a cat"), "b": Sample("b")},
    1: {"c": Sample("c", "a dog"), "d": Sample("d", "a bird")},
    2: {"e": Sample("e", "an emu")},
    3: {"f": Sample("f", "a fox")},
    4: {"g": Sample("g", "a hen"), "h": Sample("h", "an ibis")},
    5: {"i": Sample("i")},
}
NEW: Plan = {
    0: {"cat": Sample("a", "a cat"), "b": Sample("b")},  # another name
    1: {"c": Sample("c", "one dog"), "d": Sample("d", "a bird")},  # another caption
    # 2: all inputs are gone
    3: {"f": Sample("f")},  # no captions any more
    4: {"g": Sample("g")},  # one input is gone, and the captions
    5: {"i": Sample("other", "a jay")},  # another latent, and the first caption
}


def part(plan: Plan, units: Collection[int]) -> Plan:
    """Some of its units."""
    return {unit: samples for unit, samples in plan.items() if unit in units}


def captions(samples: Mapping[str, Sample]) -> dict[str, dict[str, str]]:
    return {key: {"caption": s.caption} for key, s in samples.items() if s.caption}


def latents(samples: Mapping[str, Sample]) -> dict[str, list[float]]:
    return {key: latent(sample.picture).flatten().tolist() for key, sample in samples.items()}


def write_unit(
    store: Path,
    description: Manifest,
    unit: int,
    samples: Mapping[str, Sample],
    old: CommitRecord | None,
) -> None:
    """Writes a unit, or what differs in it from a record of these latents."""
    fields = captions(samples)
    rows = [
        Row(key, f"/in/{key}", "ok", latent_shape=(CHANNELS, 2, 3), notes=(sample.picture,))
        for key, sample in samples.items()
    ]
    if old is not None and list(old.rows) == rows:
        replace_fields(store, old, fields, NO_ROOTS)
        return
    contents = Contents(
        spec_hash=description.spec_hash,
        rows=rows,
        channels=ChannelSums().to_json(),
        fields=fields,
        instead_of=old,
    )
    metadata = {"format": "latentcli", "latent_space": "toy#whitened", "unit": str(unit)}
    named = {key: latent(sample.picture) for key, sample in samples.items()}
    if description.format == "safetensors":
        tensors = {f"{key}/latent": tensor for key, tensor in named.items()}
        commit_unit(store, unit, tensors, metadata, contents)
        return
    tars = [
        TarSample(key, {"latent": tensor}, {**metadata, "key": key}, {"key": key})
        for key, tensor in named.items()
    ]
    commit_tar(store, unit, tars, contents)


def bring_to(store: Path, plan: Plan, form: str = "safetensors") -> None:
    """Makes a store, or writes those of its units anew that are not as planned."""
    description = manifest(write={"format": form})
    with StoreLock(store):
        open_for_writing(store, description)
        done = recorded_units(store)
        for unit in sorted(OLD.keys() - plan.keys()):  # as the list says, whatever is there
            delete_unit(store, unit, description.suffix)
        for unit, samples in plan.items():
            old = read_record(store, unit) if unit in done else None
            if old is None or seen_in(store, old) != (latents(samples), captions(samples)):
                write_unit(store, description, unit, samples, old)
        finish(store, description, sorted(plan), ChannelSums())


def seen_in(
    store: Path, record: CommitRecord
) -> tuple[dict[str, list[float]], dict[str, dict[str, str]]]:
    """What a unit's record says, after its files were found to be those that it names."""
    files = [(record.shard, record.bytes, record.sha256)]
    if record.fields is not None:
        files.append((record.fields.file, record.fields.bytes, record.fields.sha256))
    for name, size, sha256 in files:
        data = (store / SHARDS / name).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (size, sha256), name
    fields = {} if record.fields is None else iter_fields(store / SHARDS / record.fields.file)
    pictures = {row.key: Sample(row.notes[0]) for row in record.rows}
    return latents(pictures), dict(fields)


def check_seen(store: Path, units: Collection[int]) -> None:
    """Whoever opens the store at this instant finds each unit as it was or as it is to be."""
    reader = StoreReader(store)
    for unit in units:
        try:
            record = read_record(store, unit)
        except StoreError:
            assert unit not in NEW
            continue
        allowed = [(latents(p[unit]), captions(p[unit])) for p in (OLD, NEW) if unit in p]
        seen = seen_in(store, record)
        assert seen in allowed, unit
        for key, values in seen[0].items():
            assert reader.tensors(key)[f"{key}/latent"].flatten().tolist() == values, key


def early(store: Path) -> StoreReader:
    """A reader that has looked at every record and at no shard."""
    reader = StoreReader(store)
    list(reader.keys())
    assert "a key" not in reader
    return reader


def check_late(reader: StoreReader, units: Collection[int]) -> None:
    """What was opened before it all ended reads what has the same key to the end."""
    for unit in units:
        for key in OLD[unit].keys() & NEW.get(unit, {}).keys():
            values = reader.tensors(key)[f"{key}/latent"].flatten().tolist()
            assert values in (latents(OLD[unit])[key], latents(NEW[unit])[key]), key
