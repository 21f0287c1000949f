"""Reads tars of samples, and lists all kinds of source: one class and one row of READERS each.

What the inputs hold is another matter: every kind gives pictures through `tasks` and clips through
`clips`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from latentcli.core.errors import SampleError
from latentcli.core.types import InputRow, Row, Sample
from latentcli.jobs.loader.choose_field import choose, known_suffixes
from latentcli.jobs.loader.packed_reader import PackedReader
from latentcli.jobs.loader.prepare import Prepared, RawSample, Recipe, prepare_sample
from latentcli.jobs.loader.reader import Reader
from latentcli.jobs.loader.table_reader import ArrowReader, JsonLinesReader, ParquetReader
from latentcli.jobs.loader.tar_stream import open_tar
from latentcli.jobs.runtime.meter import IMAGE_STAGES
from latentcli.jobs.runtime.stdio import STDIN
from latentcli.jobs.settings.images import ALL_FIELDS
from latentcli.shards.keys import TAR_SUFFIXES, escape
from latentcli.shards.sources.expand import PIPE
from latentcli.shards.sources.remote import is_web
from latentcli.shards.tar.read import ByteStream
from latentcli.shards.tar.samples import read_samples
from latentcli.shards.tar.unique_keys import UniqueKeys

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
        before, whole = self.taken, self.split is None
        with open_tar(row.source, self.suffixes, self.check, hashing=whole) as tar:
            for raw in self.in_stream(row, tar):
                self.taken = before + tar.taken
                yield raw
            self.digest = tar.digest() if whole else None
            self.taken = before + max(tar.taken, row.size)

    def in_stream(self, row: InputRow, stream: ByteStream) -> Iterator[RawSample]:
        """The samples of a tar whose bytes are a stream."""
        keys = UniqueKeys()
        known = known_suffixes(self.suffixes)
        for sample in read_samples(stream, known, dots=self.dots()):
            yield from self.raws(row, sample, keys)

    def dots(self) -> str:
        """How the dots of names are read: a job that names a field says that there are fields."""
        wanted = self.wanted_field()
        return "auto" if wanted is None or f".{wanted}" in self.suffixes else "fields"

    def wanted_field(self) -> str | None:
        """The field that the job names, as `choose` takes it."""
        return self.image_field and self.image_field.lower().removeprefix(".")

    def raws(self, row: InputRow, sample: Sample, keys: UniqueKeys) -> Iterator[RawSample]:
        """A sample as the loader takes it: its pictures or clips, or why there is none.

        `keys` are those of the tar so far, where samples have several.
        """
        prefix, name = self.prefix(row), f"{row.source}{SEPARATOR}{sample.key}"
        wanted = self.wanted_field()
        each = wanted == ALL_FIELDS
        try:
            if sample.problem is not None:
                raise SampleError("read", sample.problem)
            chosen = choose(sample.members, self.suffixes, wanted)
        except SampleError as error:
            key = keys.claim(sample.key)[0] if each else sample.key
            refused = Row(prefix + key, name, "failed", stage=error.stage, error=error.reason)
            yield RawSample(refused, None)
            return
        self.nothing_to_encode += not chosen.taken
        for member in chosen.taken:
            field = member.field
            key = keys.claim(f"{sample.key}/{escape(field)}")[0] if each else sample.key
            notes = (chosen.note,) if chosen.note else ()
            made = Row(prefix + key, f"{name}.{field}", "ok", notes=notes, field=field)
            yield RawSample(made, member.data, chosen.others)


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
