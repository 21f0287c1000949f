"""Relative paths in; unique, printable keys out, and a compact index from key to unit."""

from __future__ import annotations

import hashlib
import posixpath
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]|%(?=[0-9A-Fa-f]{2})")


def unique_keys(paths: Sequence[str]) -> list[str]:
    """Key of each path: the path without its suffix, or with it where that is not unique.

    `paths` are relative, with forward slashes, and all different. The keys do not depend on
    their order: of several paths with one stem, all keep their suffix.
    """
    whole = [escape(path) for path in paths]
    keys = [escape(posixpath.splitext(path)[0]) for path in paths]
    while True:
        counts = Counter(keys)
        clashing = [i for i, key in enumerate(keys) if counts[key] > 1 and key != whole[i]]
        if not clashing:
            return keys
        for i in clashing:
            keys[i] = whole[i]


def escape(path: str) -> str:
    """Control characters and bytes that are no UTF-8 as %XX; different paths stay different."""
    return _UNPRINTABLE.sub(_percent, path)


def _percent(match: re.Match[str]) -> str:
    char = match[0]
    errors = "surrogateescape" if "\udc80" <= char <= "\udcff" else "surrogatepass"
    return "".join(f"%{byte:02X}" for byte in char.encode("utf-8", errors))


def free_key(key: str, path: str, taken: set[str]) -> str:
    """A key like `key` that is not taken: with the suffix of its path, else with ~2, ~3..."""
    suffix = escape(posixpath.splitext(path)[1])
    stem = key if key.endswith(suffix) else key + suffix
    name, number = stem, 2
    while name in taken:
        name, number = f"{stem}~{number}", number + 1
    return name


def key_hash(key: str) -> int:
    """64 bits that stand for a key, the same in every process."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little")


class KeyIndex:
    """From key to the units that may hold it: 12 bytes a key, because keys run into millions."""

    def __init__(self, keys: Iterable[tuple[str, int]]) -> None:
        hashes, units = array("Q"), array("i")
        for key, unit in keys:
            hashes.append(key_hash(key))
            units.append(unit)
        unsorted = np.frombuffer(hashes, np.uint64) if hashes else np.zeros(0, np.uint64)
        order = np.argsort(unsorted, kind="stable")
        self._hashes = unsorted[order]
        self._units = np.frombuffer(units, np.int32)[order] if units else np.zeros(0, np.int32)

    def __len__(self) -> int:
        return len(self._hashes)

    def units(self, key: str) -> list[int]:
        """Units to look into, ascending; nearly always one, and none for most unknown keys."""
        value = np.uint64(key_hash(key))
        first = int(np.searchsorted(self._hashes, value, side="left"))
        last = int(np.searchsorted(self._hashes, value, side="right"))
        return sorted(set(self._units[first:last].tolist()))

    def suspects(self) -> Iterator[int]:
        """Units, ascending, that hold a key whose hash another key has too."""
        same = self._hashes[1:] == self._hashes[:-1]
        twice = np.concatenate([same, [False]]) | np.concatenate([[False], same])
        yield from np.unique(self._units[twice[: len(self._units)]]).tolist()
