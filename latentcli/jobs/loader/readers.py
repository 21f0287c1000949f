"""Reads the inputs of a job, whatever they are: one class and one row of READERS for each kind.

What the inputs hold is another matter: every kind gives pictures through `tasks` and clips through
`clips`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from latentcli.core.types import InputRow, Row, Sample
from latentcli.jobs.loader.clip_frames import ClipInput
from latentcli.jobs.loader.packed_reader import PackedReader
from latentcli.jobs.loader.prepare import (
    Intake,
    Prepared,
    RawSample,
    Recipe,
    Task,
    prepare_sample,
    read_sample,
    unit_tasks,
)
from latentcli.jobs.loader.tar_stream import Digesting, open_tar
from latentcli.jobs.runtime.meter import IMAGE_STAGES, Meter
from latentcli.jobs.runtime.stdio import STDIN, go_on
from latentcli.shards.keys import TAR_SUFFIXES
from latentcli.shards.sources.expand import PIPE
from latentcli.shards.sources.remote import is_web
from latentcli.shards.store.commit import TarOrigin
from latentcli.shards.store.input_list import InputList
from latentcli.shards.tar.read import ByteStream
from latentcli.shards.tar.samples import payload, read_samples

SEPARATOR = "::"
"""Stands between an input and a sample of it in the source of a row."""


class Reader(Protocol):
    """Reads inputs of one kind; one object per job, used by one thread at a time."""

    packed: ClassVar[bool]
    """Whether each input holds many samples, and is a unit of its own."""
    noun: ClassVar[str]
    """What one input is called in a message."""
    endings: ClassVar[tuple[str, ...]]
    """Of the names of packed inputs, lower case; the last is the usual one."""
    origins: dict[int, TarOrigin]
    """By unit, what it was made from, where its inputs are packed."""
    taken: int
    """Bytes of packed inputs read so far."""

    @classmethod
    def owns(cls, path: str) -> bool:
        """Whether an input is of this kind, by its name."""

    def samples(self, row: InputRow) -> Iterator[RawSample]:
        """The samples of one input with their bytes, in order; refused ones too."""

    def tasks(self, intake: Intake, units: Iterable[int]) -> Iterator[Task]:
        """The pictures of some units as tasks for the loader, in order; a unit's last says so."""

    def clips(self, row: InputRow) -> Iterator[ClipInput]:
        """The clips of one input, each good until the next one is asked for."""

    def unit_prefix(self, inputs: InputList, unit: int) -> str:
        """What the keys of a unit's samples begin with in the store, and not in their input."""


@dataclass(slots=True)
class FileReader:
    """Reads pictures and clips that are files; pictures are read by whoever decodes them."""

    packed: ClassVar[bool] = False
    noun: ClassVar[str] = "file"
    endings: ClassVar[tuple[str, ...]] = ()

    suffixes: frozenset[str]
    meter: Meter
    check: Callable[[], None] = go_on
    origins: dict[int, TarOrigin] = field(default_factory=dict)
    taken: int = 0

    @classmethod
    def owns(cls, path: str) -> bool:
        """What no other kind takes is a file."""
        return True

    def samples(self, row: InputRow) -> Iterator[RawSample]:
        """The one sample that a file is."""
        yield read_sample(row)

    def tasks(self, intake: Intake, units: Iterable[int]) -> Iterator[Task]:
        """Tasks without bytes."""
        return unit_tasks(intake, units)

    def clips(self, row: InputRow) -> Iterator[ClipInput]:
        """The one clip that a file is; it is opened where it lies."""
        yield ClipInput(Row(row.key, row.source, "ok"), row.source)

    def unit_prefix(self, inputs: InputList, unit: int) -> str:
        """Nothing: keys are those of the list."""
        return ""


@dataclass(slots=True)
class TarReader(PackedReader):
    """Reads tars of samples: files, URLs, the output of commands, or standard input."""

    noun: ClassVar[str] = "tar"
    endings: ClassVar[tuple[str, ...]] = TAR_SUFFIXES

    @classmethod
    def owns(cls, path: str) -> bool:
        """Whether it is a tar by its name, or a command that gives one."""
        name = path.partition("?")[0] if is_web(path) else path
        return path.startswith(PIPE) or name.lower().endswith(cls.endings)

    def samples(self, row: InputRow) -> Iterator[RawSample]:
        """The samples of one tar; its digest is known once all of them are out."""
        before = self.taken
        with open_tar(row.source, self.check) as stream:
            counted = Digesting(stream, hashing=self.split is None)
            for raw in self.in_stream(row, counted):
                self.taken = before + counted.bytes
                yield raw
            self.digest = counted.digest_of_all() if self.split is None else None
            self.taken = before + max(counted.bytes, row.size)

    def in_stream(self, row: InputRow, stream: ByteStream) -> Iterator[RawSample]:
        """The samples of a tar whose bytes are a stream."""
        prefix = self.prefix(row)
        return (
            self.raw(row.source, prefix, sample) for sample in read_samples(stream, self.suffixes)
        )

    def raw(self, source: str, prefix: str, sample: Sample) -> RawSample:
        """A sample as the loader takes it: its picture or clip, or why there is none."""
        picture, others = payload(sample, self.suffixes)
        reason = sample.problem
        if reason is None and picture is None:
            names = ", ".join(member.field for member in sample.members[:3])
            reason = f"its sample holds nothing to encode, only {names}"
        key = prefix + sample.key
        if reason is not None or picture is None:
            place = f"{source}{SEPARATOR}{sample.key}"
            return RawSample(Row(key, place, "failed", stage="read", error=reason), None)
        place = f"{source}{SEPARATOR}{sample.key}.{picture.field}"
        return RawSample(Row(key, place, "ok"), picture.data, others)


READERS: dict[str, type[FileReader] | type[PackedReader]] = {
    "tars": TarReader,
    "files": FileReader,
}
"""By the name of the kind; a path that no packed kind owns is a file."""


def kind_of(path: str) -> str:
    """The kind of source that a path is."""
    packed = (kind for kind, reader in READERS.items() if reader.packed and reader.owns(path))
    return next(packed, "files")


def packed_suffixes() -> frozenset[str]:
    """Endings of all packed inputs."""
    return frozenset(ending for reader in READERS.values() for ending in reader.endings)


def is_lasting(source: str) -> bool:
    """Whether an input can be read a second time: those of pipes cannot."""
    return source != STDIN and not source.startswith((f"{STDIN}{SEPARATOR}", PIPE))


def prepared_samples(
    reader: Reader, rows: Iterable[InputRow], recipe: Recipe
) -> Iterator[tuple[RawSample, Prepared]]:
    """The samples of some inputs, read and prepared here one at a time, for a look at them.

    Commands are passed over: running one twice may not be wanted.
    """
    seconds = dict.fromkeys(IMAGE_STAGES, 0.0)
    for row in rows:
        if is_lasting(row.source):
            for raw in reader.samples(row):
                yield raw, prepare_sample(raw, recipe, seconds)
