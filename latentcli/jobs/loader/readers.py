"""Reads tars of samples, and lists all kinds of source: one class and one row of READERS each.

What the inputs hold is another matter: every kind gives pictures through `tasks` and clips through
`clips`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from latentcli.core.types import InputRow, Row, Sample
from latentcli.jobs.loader.packed_reader import PackedReader
from latentcli.jobs.loader.prepare import Prepared, RawSample, Recipe, prepare_sample
from latentcli.jobs.loader.reader import Reader
from latentcli.jobs.loader.table_reader import ArrowReader, JsonLinesReader, ParquetReader
from latentcli.jobs.loader.tar_stream import Digesting, open_tar
from latentcli.jobs.runtime.meter import IMAGE_STAGES
from latentcli.jobs.runtime.stdio import STDIN
from latentcli.shards.keys import TAR_SUFFIXES
from latentcli.shards.sources.expand import PIPE
from latentcli.shards.sources.remote import is_web
from latentcli.shards.tar.read import ByteStream
from latentcli.shards.tar.samples import payload, read_samples

SEPARATOR = "::"
"""Stands between an input and a sample of it in the source of a row."""


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
        name = f"{source}{SEPARATOR}{sample.key}"
        if reason is not None or picture is None:
            return RawSample(Row(key, name, "failed", stage="read", error=reason), None)
        return RawSample(Row(key, f"{name}.{picture.field}", "ok"), picture.data, others)


READERS: dict[str, type[Reader]] = {
    "files": Reader,
    "tars": TarReader,
    "parquet": ParquetReader,
    "arrow": ArrowReader,
    "jsonl": JsonLinesReader,
}
"""By the name of the kind; a path that no packed kind owns is a file. Where folders hold several
packed kinds and no other files, the first of them is meant."""


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
