"""Makes unique, printable keys of relative paths, and indexes which unit may hold a key."""

from __future__ import annotations

import hashlib
import posixpath
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence, Set

import numpy as np

# fmt: off
TAR_SUFFIXES = (
    ".tar.gz", ".tgz", ".tar.zst", ".tzst", ".tar.xz", ".txz", ".tar.bz2", ".tbz2", ".tbz", ".tar",
)
# fmt: on
"""Of tars of samples, compressed ones too; lower case."""
PARQUET_SUFFIXES = (".parquet",)
ARROW_SUFFIXES = (".arrow",)
JSONL_SUFFIXES = (".ndjson", ".jsonl")
PACKED_SUFFIXES = (*TAR_SUFFIXES, *PARQUET_SUFFIXES, *ARROW_SUFFIXES, *JSONL_SUFFIXES)
"""Of all files that hold many samples."""

_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]|%(?=[0-9A-Fa-f]{2})")
# Names of object storage may hold parts that would lead out of a folder, or that are empty.
_ODD_PART = re.compile(r"(?:^|(?<=/))\.{1,2}(?=/|$)")
_NO_PART = re.compile(r"(?:^|(?<=/))(?=/|$)")


def unique_keys(paths: Sequence[str]) -> list[str]:
    """Key of each path: the path without its suffix, or with it where that is not unique.

    `paths` are relative, with forward slashes, and all different. The keys do not depend on
    their order: of several paths with one stem, all keep their suffix.
    """
    keys = [escape(_stem(path)) for path in paths]
    while len(set(keys)) < len(keys):
        counts = Counter(keys)
        twice = (i for i, key in enumerate(keys) if counts[key] > 1)
        clashing = [i for i in twice if keys[i] != escape(paths[i])]
        if not clashing:
            raise ValueError("a path is there twice")
        for i in clashing:
            keys[i] = escape(paths[i])
    return keys


def _stem(path: str) -> str:
    stem, _, suffix = path.rpartition(".")
    if stem and stem[-1] not in "./" and "/" not in suffix:
        return stem
    return posixpath.splitext(path)[0]


def tar_keys(paths: Sequence[str]) -> list[str]:
    """Key of each tar or table: its path without its suffix, or with it where it has to stay.

    No key is another one, nor the beginning of another one in front of a slash: samples are
    stored under `<key of the tar>/<key of the sample>`. `paths` are as for `unique_keys`, and the
    keys do not depend on their order.
    """
    stems = [escape(tar_stem(path)) for path in paths]
    levels = [0] * len(stems)
    keys = stems
    while clashing := _clashing(keys, levels):
        for i in clashing:
            levels[i] += 1
        keys = [
            escape(path) + "~" * (level - 1) if level else stem
            for path, stem, level in zip(paths, stems, levels, strict=True)
        ]
    return keys


def _clashing(keys: Sequence[str], levels: Sequence[int]) -> list[int]:
    """Tars that need a longer key: all of one stem, but of equal longer keys not the shortest's."""
    folders = folders_of(keys)
    least: dict[str, int] = {}
    counts = Counter(keys)
    for key, level in zip(keys, levels, strict=True):
        least[key] = min(level, least.get(key, level))
    return [
        i
        for i, (key, level) in enumerate(zip(keys, levels, strict=True))
        if key in folders or (counts[key] > 1 and (level == 0 or level > least[key]))
    ]


def tar_stem(path: str) -> str:
    """A path without the suffix of a tar or table; with it, where nothing else would be left."""
    lower = path.lower()
    for suffix in PACKED_SUFFIXES:
        if lower.endswith(suffix):
            stem = path[: -len(suffix)]
            return path if stem == "" or stem.endswith("/") else stem
    return path


def folders_of(keys: Iterable[str]) -> set[str]:
    """All beginnings of keys in front of a slash."""
    found: set[str] = set()
    for key in keys:
        folder = key.rpartition("/")[0]
        while folder and folder not in found:
            found.add(folder)
            folder = folder.rpartition("/")[0]
    return found


def escape(path: str) -> str:
    """Control characters and bytes that are no UTF-8 as %XX; different paths stay different.

    So are parts that are `.`, `..` or empty, which no file has but an object of a storage may.
    """
    if not path.isprintable() or "%" in path:
        path = _UNPRINTABLE.sub(_percent, path)
    if path.startswith((".", "/")) or path.endswith("/") or "/." in path or "//" in path:
        path = _NO_PART.sub("%2F", _ODD_PART.sub(_percent, path)) if path else path
    return path


def _percent(match: re.Match[str]) -> str:
    text = match[0]
    if text[0] == ".":
        return "%2E" * len(text)
    errors = "surrogateescape" if "\udc80" <= text <= "\udcff" else "surrogatepass"
    return "".join(f"%{byte:02X}" for byte in text.encode("utf-8", errors))


def free_key(key: str, path: str, taken: set[str]) -> str:
    """A key like `key` that is not taken: with the suffix of its path, else with ~2, ~3..."""
    suffix = escape(posixpath.splitext(path)[1])
    stem = key if key.endswith(suffix) else key + suffix
    name, number = stem, 2
    while name in taken:
        name, number = f"{stem}~{number}", number + 1
    return name


def free_tar_key(key: str, taken: Set[str], folders: Set[str]) -> str:
    """A key like `key` that is not taken, nor above (`folders`) or below one that is."""
    at = len(key)
    parts = key.split("/")
    for count in range(1, len(parts)):
        beginning = "/".join(parts[:count])
        if beginning in taken:
            at = len(beginning)
            break
    name, number = key, 2
    while is_tar_key_taken(name, taken, folders):
        name, number = f"{key[:at]}~{number}{key[at:]}", number + 1
    return name


def is_tar_key_taken(key: str, taken: Set[str], folders: Set[str]) -> bool:
    """Whether a key is one of those, one of their folders, or below one of them."""
    return key in taken or key in folders or not folders_of([key]).isdisjoint(taken)


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
