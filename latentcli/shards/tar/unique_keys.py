"""Makes each sample's key differ from all keys before it, with little memory per key."""

from __future__ import annotations

from array import array

from latentcli.shards.keys import key_hash


class UniqueKeys:
    """Tells keys that are new from those that came before.

    Of each it holds 64 bits of a hash, some 20 bytes in all, because a pipe may bring samples for
    days. Two keys that share a hash, one time in 10^8 among a million, count as the same.
    """

    def __init__(self) -> None:
        self._table = array("Q", bytes(8 * 1024))
        self._count = 0
        self._repeated: dict[str, int] = {}
        self.last = ""
        """What `claim` gave last."""

    def claim(self, key: str) -> tuple[str, bool]:
        """(the key, True) when it is new; else (the key with ~2, ~3 and so on, False)."""
        self.last = key
        if self._add(key_hash(key)):
            return key, True
        number = self._repeated.get(key, 1)
        while True:
            number += 1
            self.last = f"{key}~{number}"
            if self._add(key_hash(self.last)):
                self._repeated[key] = number
                return self.last, False

    def _add(self, value: int) -> bool:
        """Put a hash into the table; False where it is there."""
        if self._count * 3 >= len(self._table) * 2:
            hashes = self._table
            self._table = array("Q", bytes(16 * len(hashes)))
            for old in hashes:
                if old:
                    self._table[self._slot(old)] = old
        value = value or 1
        slot = self._slot(value)
        if self._table[slot]:
            return False
        self._table[slot] = value
        self._count += 1
        return True

    def _slot(self, value: int) -> int:
        """Where a hash is, or the free place where it belongs."""
        table, last = self._table, len(self._table) - 1
        slot = value & last
        while table[slot] and table[slot] != value:
            slot = (slot + 1) & last
        return slot
