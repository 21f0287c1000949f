"""Matches the rows of a frozen input list with the inputs that its sources give."""

from __future__ import annotations

from collections.abc import Sequence

from latentcli.core.types import InputRow
from latentcli.shards.keys import folders_of, free_key, free_tar_key, is_tar_key_taken
from latentcli.shards.sources.file_list import FoundInput, FoundInputs
from latentcli.shards.sources.find_inputs import assign_units


class Match:
    """Rows of a frozen list in, one after the other; their places among the inputs found out.

    With `rekey`, rows get the keys that their inputs were found under; without it they keep their
    own.
    """

    def __init__(self, found: FoundInputs, *, rekey: bool = False) -> None:
        self._found = found
        self._rekey = rekey
        self._seen = bytearray(len(found))
        self._next = 0
        self._index: dict[str, int] | None = None
        self._others: set[str] = set()
        self._last = -1

    def position(self, row: InputRow) -> int | None:
        """Where the row's input is among those found; None where it is not."""
        paths, at = self._found.files.paths, self._next
        self._last = max(self._last, row.unit)
        # Both lists are sorted by key, so that the next one is nearly always the one.
        if at >= len(paths) or paths[at] != row.source:
            if self._index is None:
                self._index = {path: i for i, path in enumerate(paths)}
            found = self._index.get(row.source)
            if found is None:
                self._others.add(row.key)
                return None
            at = found
        if not self._rekey and self._found.keys[at] != row.key:
            self._others.add(row.key)
        self._seen[at] = 1
        self._next = at + 1
        return at

    def take(self, at: int, row: InputRow) -> None:
        """The input at a place is that of a row which had another name."""
        self._seen[at] = 1
        self._others.discard(row.key)

    def keep(self, row: InputRow) -> None:
        """A row keeps the key that it has."""
        self._others.add(row.key)

    def is_free(self, key: str) -> bool:
        """Whether no row keeps this key: none whose input is gone, or has another key."""
        return key not in self._others

    def new(self) -> list[int]:
        """Places of the inputs that no row was for, ascending."""
        return [i for i, seen in enumerate(self._seen) if not seen]

    def new_rows(self, samples_per_shard: int) -> list[InputRow]:
        """Rows of the new inputs, in new units after the last, under keys that no row has."""
        new = [self._found[i] for i in self.new()]
        clashing = self._clashing(new)
        if clashing:
            taken = set(self._found.keys) | self._others
            folders = folders_of(taken) if self._found.packed else set[str]()
            for i in clashing:
                taken.discard(new[i].key)
            taken |= self._others
            for i in clashing:
                new[i] = self._renamed(new[i], taken, folders)
        new.sort(key=lambda item: item.key)
        return assign_units(new, samples_per_shard, first_unit=self._last + 1)

    def _clashing(self, new: Sequence[FoundInput]) -> list[int]:
        if not self._found.packed:
            return [i for i, item in enumerate(new) if item.key in self._others]
        folders = folders_of(self._others)
        clashes = (is_tar_key_taken(item.key, self._others, folders) for item in new)
        return [i for i, clash in enumerate(clashes) if clash]

    def _renamed(self, item: FoundInput, taken: set[str], folders: set[str]) -> FoundInput:
        if self._found.packed:
            key = free_tar_key(item.key, taken, folders)
            folders |= folders_of([key])
        else:
            key = free_key(item.key, item.path, taken)
        taken.add(key)
        return item._replace(key=key)
