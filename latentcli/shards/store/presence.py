"""Finds out what of a store is there: units that can be read, damaged ones and missing ones."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from latentcli.core.errors import StoreError
from latentcli.shards.layout import INPUTS, SHARDS, record_path
from latentcli.shards.storage.hub import fetch
from latentcli.shards.storage.paths import AnyPath
from latentcli.shards.store.commit import read_record
from latentcli.shards.store.input_list import InputList
from latentcli.shards.store.manifest import Manifest
from latentcli.shards.store.unit_state import file_sizes

AGAIN = "Run the same encode command again to encode the damaged and missing units."
"""What is to be done about a store that is not whole."""
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Presence:
    """What of a store is there, by the names and sizes of its files; no shard is read for it."""

    units: Sequence[int]
    """Whose record is sound and whose shard has the recorded size, ascending."""
    encoded: int
    """Samples that have latents in these units."""
    damaged: Mapping[int, str] = field(default_factory=dict)
    """Why another unit that was committed cannot be read, in words without a full stop."""
    recorded: Sequence[int] = ()
    """Damaged units whose record is sound, ascending: what was in them is known."""
    unreadable: int = 0
    """Samples that had latents in these."""
    without_fields: Mapping[int, str] = field(default_factory=dict)
    """Why the captions and other fields of a unit cannot be read whose latents can."""
    left: Sequence[int] = ()
    """Units that are listed but have no commit record, ascending."""
    never_done: bool = False
    """Whether none of these was in the store when it was last complete: no file can be lost."""
    missing: int = 0
    """Of a finished store, latents that the manifest counts and no sound record lists; of one
    that is not finished, inputs of the units without a sound record."""
    is_known: bool = True
    """Whether it is known what belongs to the store: false where it has no sound input list and
    is not finished."""

    @property
    def is_whole(self) -> bool:
        """Whether nothing is damaged or missing."""
        gaps = self.damaged or self.without_fields or self.left or self.missing
        return self.is_known and not gaps

    def describe(self) -> str:
        """What is damaged or missing, in words without a full stop; empty where nothing is."""
        damaged = [*self.damaged.items(), *self.without_fields.items()]
        parts = [f"unit {unit}: {why}" for unit, why in damaged[:_SHOWN]]
        if len(damaged) > _SHOWN:
            parts.append(f"{len(damaged) - _SHOWN:,} more damaged units")
        if self.left:
            more = f" and {len(self.left) - _SHOWN:,} more" if len(self.left) > _SHOWN else ""
            names = ", ".join(map(str, self.left[:_SHOWN]))
            noun = "unit" if len(self.left) == 1 else "units"
            why = "not encoded yet" if self.never_done else "not encoded, or the files are gone"
            parts.append(f"{noun} {names}{more}: {why}")
        elif self.missing and not self.damaged:
            parts.append("units of the store have no commit record")
        if not self.is_known:
            parts.append(f"without its {INPUTS} it is not known what else belongs to it")
        return "; ".join(parts)


def presence_of(
    store: AnyPath, manifest: Manifest, recorded: Sequence[int], *, closely: bool = False
) -> Presence:
    """What is there of the units that have a file with the name of a commit record.

    For a finished store that has as many records and bytes of shards as its manifest says one
    listing is enough; else, or `closely`, every record is read once. StoreError where the folder
    cannot be listed.
    """
    sizes, totals = file_sizes(store / SHARDS), manifest.totals
    held = sum(size for name, size in sizes.items() if name.endswith(manifest.suffix))
    complete = manifest.status == "complete"
    fits = complete and (len(recorded), held) == (totals.shards, totals.bytes)
    if fits and not closely:
        return Presence(recorded, totals.encoded)
    units: list[int] = []
    sound: list[int] = []
    damaged: dict[int, str] = {}
    without_fields: dict[int, str] = {}
    encoded = unreadable = 0
    fetch(record_path(store, unit) for unit in recorded)
    for unit in recorded:
        try:
            record = read_record(store, unit)
        except StoreError as error:
            damaged[unit] = str(error).removesuffix(".")
            continue
        if why := _difference(store, record.shard, record.bytes, sizes):
            damaged[unit] = why
            sound.append(unit)
            unreadable += record.encoded
            continue
        units.append(unit)
        encoded += record.encoded
        of = record.fields
        if of is not None and (why := _difference(store, of.file, of.bytes, sizes)):
            without_fields[unit] = why
    inputs = _input_list(store)
    lost = [] if inputs is None else _without(inputs, {*units, *sound})
    left = [unit for unit in lost if unit not in damaged]
    if complete:
        missing = max(totals.encoded - encoded - unreadable, 0)
    else:
        missing = 0 if inputs is None else sum(map(inputs.count, lost))
    known = complete or inputs is not None
    never_done = not complete and min(left, default=0) >= totals.shards
    return Presence(
        *(units, encoded, damaged, sound, unreadable, without_fields, left, never_done),
        *(missing, known),
    )


def repair_advice(store: AnyPath) -> str:
    """What makes a shard again whose size is right and whose bytes are not, as a sentence."""
    return (
        f"latentcli verify --repair {store} marks it, and the same encode command then encodes it"
        " again."
    )


def _difference(store: AnyPath, name: str, recorded: int, sizes: Mapping[str, int]) -> str:
    """Why a unit's file is not the one that its record describes; empty where it may be."""
    path, size = store / SHARDS / name, sizes.get(name)
    if size is None:
        return f"{path} is missing"
    # Some web servers do not tell sizes.
    if size not in (recorded, -1):
        return f"{path} is damaged: it has {size:,} bytes, its record says {recorded:,}"
    return ""


def _input_list(store: AnyPath) -> InputList | None:
    """The input list; None where it is gone or damaged, which takes no latent away."""
    try:
        return InputList.open(store / INPUTS)
    except StoreError:
        return None


def _without(inputs: InputList, sound: Collection[int]) -> list[int]:
    """Units that have inputs and no sound record, ascending."""
    return [unit for unit in inputs.numbers if unit not in sound]
