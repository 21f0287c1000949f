"""Groups the members of one key into samples, once it is certain which belong together.

Which members are one sample is webdataset's rule: those in a row whose names agree up to the
first dot after the last slash, the key. The rest of the name is the field.

That rule makes one sample of many where the keys themselves have dots. So a key whose members
all have more dots in their fields (photo.2021.01.jpg) is looked at again. The name of each
picture in it without the last suffix is a stem; pictures and what goes on with a stem and a dot
belong together (photo.2021.01.jpg, photo.2021.01.txt). Then,

- several stems: each is a sample with the stem for a key, and a field of what follows it. A
  member that goes on with none of them has nothing to belong to, and is refused.
- one stem, and all members go on with it: the same.
- a member is <key>.latent.safetensors: one sample by webdataset's rule. latentcli writes
  its tars so, and their keys have no dots.
- one stem, and other members do not go on with it (0001.image.jpg, 0001.caption.txt): one sample
  by webdataset's rule, as is one with a field without a dot (0001.jpg, 0001.seg.png).

A tar may hold nothing but such members of one key. They are not collected without end: with
several stems seen, and LOOK_AHEAD members, the first rule is taken for the rest of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from latentcli.shards.tar.header import BLOCK
from latentcli.shards.tar.read import TarEntry, TarLimits
from latentcli.shards.tar.write import LATENT

LOOK_AHEAD = 64
"""Members of one key after which, at the latest, it is settled whether the key has dots."""
LOOK_AHEAD_BYTES = 256 << 20
"""The same in bytes."""


def key_and_field(name: str) -> tuple[str, str] | None:
    """A member's name parted at the first dot after the last slash; None where either is empty."""
    dot = name.find(".", name.rfind("/") + 1)
    if dot <= name.rfind("/") + 1 or dot == len(name) - 1:
        return None
    return name[:dot], name[dot + 1 :]


def _is_whole(field: str) -> bool:
    """Whether a field says that the key ends at its first dot."""
    return "." not in field or field == LATENT


@dataclass(slots=True)
class Run:
    """Members one behind the other that may be one sample."""

    stem: str | None = None
    """Name of its picture without the last suffix; None while there is no picture."""
    entries: list[TarEntry] = field(default_factory=list)
    size: int = 0
    full: bool = False
    """Whether it is too large, and no more of it is held."""

    def add(self, entry: TarEntry) -> None:
        """Take a member."""
        if not self.full:
            self.entries.append(entry)
            self.size += len(entry.data) + BLOCK

    def refuse(self, problem: str) -> None:
        """Drop the members, and take no more."""
        self.entries = [TarEntry(self.entries[0].name, b"", problem)]
        self.size, self.full = BLOCK, True


class Group:
    """Members in a row of one key, by webdataset's rule; the samples that they turn out to be."""

    def __init__(self, key: str, suffixes: frozenset[str], limits: TarLimits) -> None:
        self.key = key
        self._suffixes = suffixes
        self._most = limits.sample_bytes
        self._runs = [Run()]
        self._count = 0
        self._whole = self._parted = False

    def add(self, entry: TarEntry) -> list[Run]:
        """Take the next member; the runs that are settled and complete with it."""
        self._count += 1
        if not self._parted and not self._whole and _is_whole(entry.name[len(self.key) + 1 :]):
            self._join()
        (self._runs[0] if self._whole else self._run_for(entry)).add(entry)
        held = sum(run.size for run in self._runs)
        if not self._whole and (self._count >= LOOK_AHEAD or held >= LOOK_AHEAD_BYTES):
            self._parted = self._parted or self._stems() > 1
        done: list[Run] = []
        if self._parted:
            done, self._runs = self._runs[:-1], self._runs[-1:]
            held = self._runs[0].size
        if held > self._most:
            self._refuse()
        return done

    def end(self) -> list[Run]:
        """What is left, now that no more members come."""
        stems = self._stems()
        if not self._parted and (not stems or (stems == 1 and len(self._runs) > 1)):
            self._join()
        return self._runs

    def sample_key(self, run: Run) -> str:
        """The key of the run's sample."""
        return self.key if self._whole or run.stem is None else run.stem

    def is_orphan(self, run: Run) -> bool:
        """Whether the run has no picture although its neighbours have their own."""
        return not self._whole and run.stem is None

    def open_key(self) -> str:
        """The key of the sample that is being read."""
        return self.sample_key(self._runs[-1]) if self._parted else self.key

    def _join(self) -> None:
        """Make one run of all: it is one sample."""
        self._whole = True
        entries = [entry for run in self._runs for entry in run.entries]
        size = sum(run.size for run in self._runs)
        self._runs = [Run(None, entries, size, self._runs[0].full)]

    def _refuse(self) -> None:
        if not self._parted:
            self._join()
        self._runs[-1].refuse(
            f"its members have more than {self._most:,} bytes together, which is the limit"
        )

    def _stems(self) -> int:
        return sum(run.stem is not None for run in self._runs)

    def _run_for(self, entry: TarEntry) -> Run:
        run = self._runs[-1]
        stem = self._stem(entry.name)
        if run.stem is None:
            return run if stem is None else self._with_picture(run, stem)
        if self._goes_on(entry.name, run.stem):
            return run
        shorter = stem is not None and stem != self.key and run.stem.startswith(f"{stem}.")
        if shorter:
            # The picture of photo.01 may come behind photo.01.depth.png.
            run.stem = stem
            return run
        self._runs.append(Run(stem))
        return self._runs[-1]

    def _with_picture(self, run: Run, stem: str) -> Run:
        """The run of a stem whose picture has come, of those that wait for one."""
        at = len(run.entries)
        while at and self._goes_on(run.entries[at - 1].name, stem):
            at -= 1
        if at == 0:
            run.stem = stem
            return run
        own = Run(stem)
        for entry in run.entries[at:]:
            own.add(entry)
        run.entries, run.size = run.entries[:at], run.size - own.size
        self._runs.append(own)
        return own

    def _goes_on(self, name: str, stem: str) -> bool:
        """Whether the name is the stem, a dot and more; with the key alone for a stem, a suffix."""
        return name.startswith(f"{stem}.") and (
            stem != self.key or "." not in name[len(stem) + 1 :]
        )

    def _stem(self, name: str) -> str | None:
        stem, _, suffix = name.rpartition(".")
        return stem if f".{suffix.lower()}" in self._suffixes else None
