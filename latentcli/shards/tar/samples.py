"""Reads the samples of a tar, each certainly complete or with the reason why it is not.

group.py says which members are one sample.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from itertools import groupby

from latentcli.core.types import Member, Sample
from latentcli.shards.keys import escape
from latentcli.shards.tar.group import Group, Run, key_and_field
from latentcli.shards.tar.header import shown
from latentcli.shards.tar.read import DEFAULT_LIMITS, ByteStream, TarEntry, TarLimits, read_members
from latentcli.shards.tar.unique_keys import UniqueKeys

_HIDDEN = re.compile(r"(?:^|/)(?:\.[^/]*$|PaxHeaders(?:\.\d+)?/)|^__[^/]*__(?:$|/)")
"""Hidden files, what an old tar made of pax headers, and webdataset's own notes."""


CAME_BEFORE = (
    "its key occurred before in this tar, and the members of a sample must be adjacent: make the"
    " tar again with tar --sort=name"
)
"""Why a sample is refused whose members are not in a row; the same for all, so that they count as
one reason."""


def read_samples(
    stream: ByteStream,
    suffixes: frozenset[str],
    limits: TarLimits = DEFAULT_LIMITS,
    *,
    unique: bool = True,
    dots: str = "auto",
) -> Iterator[Sample]:
    """The samples of a tar in its order; those that are refused have a problem and no members.

    `suffixes` are those of pictures (or clips), lower case with the dot; `dots` is a key of
    group.DOTS. A sample may have no picture, such as a text that belongs to none. Keys are
    printable, relative paths without `..` and unique, also those of refused samples: what comes
    twice gets ~2, ~3; with `unique` False all that comes is taken. A sample comes out when the
    header behind it was read soundly, or the end mark. Where the tar is broken, the last sample
    has the problem, and the key of what was being read.

    Left out are folders, hidden files, folders named PaxHeaders, and what webdataset skips too
    (__meta__). One refused member, a member that comes twice, or members that are too large
    together, refuse their sample as a whole. A name without a suffix is refused at once, and the
    sample around it comes later.
    """
    collected = _Samples(suffixes, limits, unique, dots)
    for entry in read_members(stream, limits):
        if entry.kind == "broken":
            yield from collected.broken(entry)
        elif entry.kind == "end":
            yield from collected.end()
        elif entry.problem is not None or not _HIDDEN.search(entry.name):
            yield from collected.add(entry)


def payload(sample: Sample, suffixes: frozenset[str]) -> tuple[Member | None, tuple[Member, ...]]:
    """The picture (or clip) of a sample, None where it has none, and its other members.

    The picture is the first whose whole field is one of the suffixes, else the first whose field
    ends in one.
    """
    fields = [member.field.lower() for member in sample.members]
    plain = (at for at, name in enumerate(fields) if f".{name}" in suffixes)
    ending = (at for at, name in enumerate(fields) if f".{name.rpartition('.')[2]}" in suffixes)
    at = next(plain, next(ending, None))
    if at is None:
        return None, sample.members
    return sample.members[at], (*sample.members[:at], *sample.members[at + 1 :])


class _Samples:
    """Puts members together, and gives every sample its key."""

    def __init__(
        self, suffixes: frozenset[str], limits: TarLimits, unique: bool, dots: str
    ) -> None:
        self._unique = unique
        self._group_of = partial(Group, suffixes=suffixes, limits=limits, dots=dots)
        self._group: Group | None = None
        self._keys = UniqueKeys()

    def add(self, entry: TarEntry) -> Iterator[Sample]:
        """Take a member; the samples that are complete with it."""
        parted = key_and_field(entry.name)
        if parted is None:
            # As for webdataset, it does not end the sample around it.
            yield self._refused(entry.name, entry.problem or _no_suffix(entry.name))
            return
        if self._group is None or self._group.key != parted[0]:
            yield from self.end()
            self._group = self._group_of(parted[0])
        for run in self._group.add(entry):
            yield from self._samples(self._group, run)

    def end(self) -> Iterator[Sample]:
        """What is left, now that no more members of its key come."""
        group, self._group = self._group, None
        if group is not None:
            for run in group.end():
                yield from self._samples(group, run)

    def broken(self, entry: TarEntry) -> Iterator[Sample]:
        """The samples that were complete, and one that stands for the rest of the tar."""
        parted = None if _HIDDEN.search(entry.name) else key_and_field(entry.name)
        if self._group is not None and parted is not None and parted[0] != self._group.key:
            yield from self.end()
        key = parted[0] if parted else f"{self._keys.last} (rest)".strip()
        if self._group is not None:
            key = self._group.open_key()
        yield self._refused(
            key,
            f"{entry.problem}. This sample and all after it are lost: make or fetch the tar again",
        )

    def _samples(self, group: Group, run: Run) -> Iterator[Sample]:
        """The sample of a run; of members that belong to no picture, one for each name."""
        if not group.is_orphan(run):
            yield self._sample(group.sample_key(run), run.entries)
            return
        for key, entries in groupby(run.entries, lambda entry: entry.name.rpartition(".")[0]):
            yield self._sample(key, list(entries))

    def _sample(self, key: str, entries: list[TarEntry]) -> Sample:
        problem = _problem(entries)
        name, first = self._claim(key)
        if problem is None and not first:
            problem = CAME_BEFORE
        if problem is not None:
            return Sample(name, (), problem)
        start = len(key) + 1
        return Sample(name, tuple(Member(e.name[start:], e.data) for e in entries))

    def _refused(self, key: str, problem: str) -> Sample:
        return Sample(self._claim(key)[0], (), problem)

    def _claim(self, key: str) -> tuple[str, bool]:
        if not self._unique:
            self._keys.last = safe_key(key)
            return self._keys.last, True
        return self._keys.claim(safe_key(key))


def safe_key(key: str) -> str:
    """A key as it is shown and stored: printable, a path inside a folder, never empty."""
    return escape(key) or "(no name)"


def _problem(entries: list[TarEntry]) -> str | None:
    """Why these members are no sample."""
    fields: set[str] = set()
    for entry in entries:
        if entry.problem is not None:
            return entry.problem
        # webdataset takes fields for equal that differ in case alone.
        name = entry.name.lower()
        if name in fields:
            return f"member {shown(entry.name)} is there twice"
        fields.add(name)
    return None


def _no_suffix(name: str) -> str:
    return f"member {shown(name)} has no suffix; a sample's members are named <key>.<suffix>"
