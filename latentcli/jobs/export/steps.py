"""Makes the files of an export in steps, each from some samples in a row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple, overload

from latentcli.exports.format import ExportFormat, ExportSample, Facts, File, Setting
from latentcli.exports.formats import export_format
from latentcli.jobs.export.links import Links
from latentcli.jobs.export.samples import Reading
from latentcli.jobs.export.write import Writer

STEP = 256
"""Samples of a step of an export, of a format with files for each sample."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a process has to know to make the files of any step; it can be sent to one."""

    to: str
    """Name of the format, whose functions every process has."""
    folder: Path
    """That the files go to, as it was given."""
    setting: Setting
    reading: Reading
    count: int
    """Samples of the export."""
    step: int
    """Samples of each step, which leaves whole files."""

    @property
    def format(self) -> ExportFormat:
        """The format."""
        return export_format(self.to)

    @property
    def steps(self) -> int:
        """How many steps there are."""
        return -(-self.count // self.step)


class Made(NamedTuple):
    """A step whose files are there."""

    step: int
    files: list[tuple[str, int]]
    """(path, bytes) of each."""
    facts: Facts
    samples: int


class LazySamples(Sequence[ExportSample]):
    """Samples in a row that are read while they are gone through, and read again the next time."""

    def __init__(self, work: Work, start: int) -> None:
        self._work = work
        self._start = start
        self._count = min(work.step, work.count - start)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[ExportSample]:
        return islice(self._work.reading.samples(self._start), self._count)

    @overload
    def __getitem__(self, at: int) -> ExportSample: ...
    @overload
    def __getitem__(self, at: slice) -> list[ExportSample]: ...
    def __getitem__(self, at: int | slice) -> ExportSample | list[ExportSample]:
        return list(self)[at]


def steps_of(work: Work, todo: Sequence[int]) -> Iterator[tuple[int, Sequence[ExportSample]]]:
    """The steps to do, and their samples, read in the order of the store."""
    if work.format.lazy:
        yield from ((step, LazySamples(work, step * work.step)) for step in todo)
        return
    start = None
    samples: Iterator[ExportSample] = iter(())
    for step in todo:
        if step * work.step != start:
            samples = work.reading.samples(step * work.step)
        taken = list(islice(samples, work.step))
        start = step * work.step + len(taken)
        yield step, taken


@dataclass(frozen=True, slots=True)
class Maker:
    """Makes steps, one after the other."""

    work: Work
    ours: frozenset[str]
    """Files that this export wrote before."""
    link: bool
    """Whether to lay pictures and captions where the trainer looks for them."""

    def make(self, todo: Sequence[int]) -> Iterator[Made]:
        """Makes some steps; StoreError as `Reading.batch` and where the system refuses to write."""
        work = self.work
        writer, texts = Writer(work.folder, work.format.merge, self.ours), Writer(work.folder)
        links = Links(work.format, work.folder) if self.link else None
        for step, samples in steps_of(work, todo):
            group = work.format.write(samples, step, work.setting)
            files = writer.write(group.files)
            if links is not None:
                files += texts.write(self._kept(links.lay(samples)))
            yield Made(step, files, dict(group.facts), len(samples))

    def _kept(self, captions: Iterable[File]) -> Iterator[File]:
        """The captions to write: one that was there before us is its owner's."""
        folder = self.work.folder
        return (f for f in captions if f.path in self.ours or not (folder / f.path).exists())
