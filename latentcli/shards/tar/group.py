"""Groups the members of one key into samples, once it is certain which belong together.

Which members are one sample is webdataset's rule: those in a row whose names agree up to the
first dot after the last slash, the key. The rest of the name is the field.

That rule makes one sample of many where the keys themselves have dots. So a key whose members
all have more dots in their fields (photo.2021.01.jpg) is looked at again. The name of each
picture in it without the last suffix is a stem; pictures and what goes on with a stem and a dot
belong together (photo.2021.01.jpg, photo.2021.01.txt). Then,

- a picture is <key>.<suffix> (0001.jpg, 0001.seg.png), or a member is <key>.latent.safetensors:
  one sample by webdataset's rule. latentcli writes its tars so, and their keys have no dots.
- several stems, and one of them goes on behind the key with a letter (0001.depth.png,
  0001.image.jpg): those are names of fields, and it is one sample by webdataset's rule.
- several other stems, such as numbers (photo.2021.01.jpg, photo.2021.02.jpg): each is a sample
  with the stem for a key, and a field of what follows it. What has a field without a dot
  (0001.1.jpg, 0001.2.jpg, 0001.json) belongs to each of them. A member that goes on with none of
  them has no picture to belong to.
- one stem, and all members go on with it: the same.
- one stem, and other members do not go on with it (0001.image.jpg, 0001.caption.txt): one sample
  by webdataset's rule.

A tar may hold nothing but such members of one key. They are not collected without end: with
several stems seen, and LOOK_AHEAD members, each stem is a sample from then on, unless a field
without a dot said that they are named fields.
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

DOTS = {
    "auto": "as is said above",
    "keys": "several stems are several samples unless a field has no dot, whatever their names",
    "fields": "webdataset's rule alone",
}
"""How the dots of names are read."""


def key_and_field(name: str) -> tuple[str, str] | None:
    """A member's name parted at the first dot after the last slash; None where either is empty."""
    dot = name.find(".", name.rfind("/") + 1)
    if dot <= name.rfind("/") + 1 or dot == len(name) - 1:
        return None
    return name[:dot], name[dot + 1 :]


def is_named(rest: str) -> bool:
    """Whether what follows a key and a dot is the name of a field, and not a part of the key."""
    return rest[:1].isalpha() or rest.startswith("_")


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

    def __init__(
        self, key: str, suffixes: frozenset[str], limits: TarLimits, dots: str = "auto"
    ) -> None:
        """`dots` is a key of DOTS."""
        self.key = key
        self._suffixes = suffixes
        self._most = limits.sample_bytes
        self._dots = dots
        self._runs = [Run()]
        self._count = 0
        self._has_short = self._parted = False
        self._whole = dots == "fields"

    def add(self, entry: TarEntry) -> list[Run]:
        """Take the next member; the runs that are settled and complete with it."""
        self._count += 1
        if not self._parted and not self._whole:
            self._look_at(entry.name[len(self.key) + 1 :])
        (self._runs[0] if self._whole else self._run_for(entry)).add(entry)
        held = sum(run.size for run in self._runs)
        if not self._whole and (self._count >= LOOK_AHEAD or held >= LOOK_AHEAD_BYTES):
            self._settle()
        done: list[Run] = []
        if self._parted:
            done, self._runs = self._runs[:-1], self._runs[-1:]
            held = self._runs[0].size
        if held > self._most:
            self._refuse()
        return done

    def end(self) -> list[Run]:
        """What is left, now that no more members come."""
        if self._parted or self._whole:
            return self._runs
        if self._stems() > 1 and not self._are_fields():
            self._share()
        elif self._stems() == 0 or len(self._runs) > 1:
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

    def _look_at(self, field: str) -> None:
        """Join all where a field says for certain that the key ends at its first dot."""
        short = "." not in field
        self._has_short |= short
        is_picture = short and f".{field.lower()}" in self._suffixes
        if field == LATENT or is_picture or (short and self._dots == "keys"):
            self._join()

    def _settle(self) -> None:
        """Decide by what there is so far: no more members are held together for that."""
        if self._parted or self._stems() < 2:
            return
        if self._has_short and self._are_fields():
            self._join()
        else:
            self._parted = True

    def _are_fields(self) -> bool:
        """Whether the stems of several pictures are names of fields."""
        stems = [run.stem for run in self._runs if run.stem is not None]
        return self._dots == "auto" and any(is_named(s[len(self.key) + 1 :]) for s in stems)

    def _share(self) -> None:
        """Give each picture what belongs to the key as a whole."""
        shared: list[TarEntry] = []
        for run in self._runs:
            if run.stem is None:
                shared += filter(self._is_short, run.entries)
                run.entries = [entry for entry in run.entries if not self._is_short(entry)]
        self._runs = [run for run in self._runs if run.entries]
        for run in self._runs:
            own = {entry.name.lower() for entry in run.entries}
            for entry in shared:
                name = f"{run.stem}{entry.name[len(self.key) :]}"
                if run.stem is not None and name.lower() not in own:
                    run.add(TarEntry(name, entry.data, entry.problem))

    def _is_short(self, entry: TarEntry) -> bool:
        return "." not in entry.name[len(self.key) + 1 :]

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
