"""Counts the shards that cannot be read, and warns of each once."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from latentcli.core.errors import StoreError
from latentcli.jobs.store.latent_store import LatentStore
from latentcli.jobs.training.shared_numbers import SharedNumbers


class DamagedShard(RuntimeWarning):
    """A shard is damaged or missing, and its samples are left out."""


class Damage:
    """The units of a store that could not be read, by all processes that read it for one loop."""

    def __init__(self, units: Collection[int]) -> None:
        """`units` are those that a damaged one is among."""
        self._units = sorted(units)
        self._places = {unit: place for place, unit in enumerate(self._units)}
        self._found = SharedNumbers(len(self._units))

    @property
    def units(self) -> tuple[int, ...]:
        """Damaged or missing units that were found so far, ascending."""
        return tuple(self._units[place] for place in self._found.set_places())

    def __contains__(self, unit: int) -> bool:
        return bool(self._found[self._places[unit]])

    def add(self, unit: int, why: str) -> None:
        """Counts a unit, and warns of it where that is new; `why` has no full stop."""
        if unit not in self:
            self._found[self._places[unit]] = 1
            warnings.warn(
                f"Unit {unit} is left out: {why.removesuffix('.')}.", DamagedShard, stacklevel=2
            )

    @contextmanager
    def leaving_out(self, unit: int) -> Iterator[None]:
        """Counts the unit where the block has trouble with the store, which ends it."""
        try:
            yield
        except StoreError as error:
            self.add(unit, str(error))


def damage_of(store: LatentStore) -> Damage:
    """What is known of a store's damage once its records were read, told in warnings."""
    there = store.look_closely()
    damage = Damage({*there.units, *there.damaged, *there.left})
    for unit, why in there.damaged.items():
        damage.add(unit, why)
    for unit in there.left:
        damage.add(unit, f"{store.path} has no commit record of it")
    return damage
