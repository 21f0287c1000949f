"""Cuts the samples of packed inputs, such as tars, into tasks, and resumes streams of them."""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from tempfile import NamedTemporaryFile
from typing import ClassVar

from latentcli.core.errors import StoreError
from latentcli.core.types import InputRow, Row
from latentcli.jobs.loader.clip_frames import ClipInput
from latentcli.jobs.loader.prepare import Intake, RawSample, Task
from latentcli.jobs.loader.reader import Reader
from latentcli.jobs.runtime.meter import Meter
from latentcli.shards.store.commit import TarOrigin
from latentcli.shards.store.input_list import InputList

TASK_SAMPLES, TASK_BYTES = 8, 4 * 2**20
"""A task is full with so many samples, or with samples of so many bytes."""
SLOW = 0.2
"""Seconds after which a task goes out with what has come: a slow pipe must not hold it up."""
HELD = 64 * 2**20
"""Bytes of a stream's last, short unit that wait for its end, in case nothing in it is new."""


@dataclass(frozen=True, slots=True)
class Known:
    """What a store has of a unit of a stream already."""

    keys: Sequence[str] = ()
    """Of its samples, in their order."""
    done: bool = False
    """Whether these need not be encoded again."""
    cut: bool = False
    """Whether the stream may have been cut short at the last of them."""

    @property
    def sure(self) -> Sequence[str]:
        """Keys that the stream must have again."""
        return self.keys[:-1] if self.cut else self.keys

    def differs(self, place: int, row: Row) -> bool:
        """Whether a sample of the stream is not what it was, or was not there."""
        if place >= len(self.keys) or row.key != self.keys[place]:
            return True
        return self.cut and place == len(self.keys) - 1 and row.status == "ok"


@dataclass(slots=True)
class PackedReader(Reader):
    """Reads inputs that hold many samples each.

    A kind of source is a class with a `noun`, `endings` and `samples`, which keeps `digest` and
    `taken` where it can.
    """

    packed: ClassVar[bool] = True

    split: int | None = None
    """Every so many samples are a unit of their own: a stream has no end that is known."""
    known: Callable[[int], Known] = lambda unit: Known()
    """Of a stream: what there is of a unit."""
    units: int = 0
    """Units of a stream so far."""
    passed: set[int] = field(default_factory=set)
    """Those of them that were done."""
    digest: str | None = None
    """Of the input that was read last, once all of its samples are out; None where unknown."""

    def unit_prefix(self, inputs: InputList, unit: int) -> str:
        """The key of its input, unless that is cut into units."""
        return self.prefix(inputs.rows(unit)[0]) if self.split is None else ""

    def prefix(self, row: InputRow) -> str:
        """What the keys of an input's samples begin with."""
        return f"{row.key}/" if row.key else ""

    def tasks(self, intake: Intake, units: Iterable[int]) -> Iterator[Task]:
        """Tasks of the units' inputs, in order; every unit has at least one, its last says so."""
        for row in rows_of(intake.inputs, units):
            before = self.nothing_to_encode
            samples = timed_reads(self.samples(row), self.meter)
            if self.split is not None:
                yield from self._stream(samples, row)
                continue
            yield from grouped(row.unit, samples)
            self.origins[row.unit] = self._origin(row, before)
            yield Task(row.unit, 0, 0, (), True)

    def clips(self, row: InputRow) -> Iterator[ClipInput]:
        """The clips of one input, each in a file that is there until the next is asked for."""
        before = self.nothing_to_encode
        for raw in timed_reads(self.samples(row), self.meter):
            if raw.data is None:
                yield ClipInput(raw.row, None)
                continue
            row_of_clip = replace(raw.row, sha256=hashlib.sha256(raw.data).hexdigest())
            with clip_file(raw.data, raw.row.source) as path:
                yield ClipInput(row_of_clip, path, raw.others)
        self.origins[row.unit] = self._origin(row, before)

    def _origin(self, row: InputRow, before: int) -> TarOrigin:
        """What a unit was made from, all of which has been read; `before`, so much held nothing."""
        nothing = self.nothing_to_encode - before
        key = row.key if self.split is None else None
        return TarOrigin(row.source, self.digest, key, nothing)

    def _stream(self, samples: Iterator[RawSample], row: InputRow) -> Iterator[Task]:
        """Units of `split` samples each, of which those that are done give no task."""
        assert self.split is not None
        before = self.nothing_to_encode
        for first in samples:
            unit, self.units = self.units, self.units + 1
            share = itertools.chain([first], itertools.islice(samples, self.split - 1))
            left = self._left(unit, share)
            if left is None:
                self.passed.add(unit)
                continue
            yield from grouped(unit, left)
            self.origins[unit] = self._origin(row, before)
            before = self.nothing_to_encode
            yield Task(unit, 0, 0, (), True)

    def _left(self, unit: int, share: Iterator[RawSample]) -> Iterator[RawSample] | None:
        """The samples of a unit if it is to be encoded; None where it is done, and passed over."""
        known = self.known(unit)
        share = checked(unit, known.sure, share)
        if not known.done:
            return share
        if len(known.sure) == self.split:
            for _ in share:
                pass
            return None
        # The last unit of a stream is done unless there is more of it now.
        held: list[RawSample] = []
        size = 0
        for raw in share:
            held.append(raw)
            size += raw.held
            if size > HELD or known.differs(len(held) - 1, raw.row):
                return itertools.chain(held, share)
        return None if len(held) == len(known.keys) else iter(held)


@contextmanager
def clip_file(data: bytes, name: str) -> Iterator[str]:
    """The path of a temporary file with a clip's bytes: PyAV reads forwards and backwards."""
    suffix = PurePosixPath(name).suffix
    with NamedTemporaryFile(prefix="latentcli-", suffix=suffix) as file:
        file.write(data)
        file.flush()
        yield file.name


def rows_of(inputs: InputList, units: Iterable[int]) -> Iterator[InputRow]:
    """The inputs of some units, in order."""
    return (row for unit in units for row in inputs.rows(unit))


def grouped(unit: int, samples: Iterable[RawSample]) -> Iterator[Task]:
    """Samples of a unit as tasks that are neither long nor large."""
    pending: list[RawSample] = []
    start = held = 0
    began = time.perf_counter()
    for raw in samples:
        pending.append(raw)
        held += raw.held
        slow = time.perf_counter() - began > SLOW
        if len(pending) >= TASK_SAMPLES or held >= TASK_BYTES or slow:
            yield Task(unit, start, len(pending), tuple(pending))
            start, held, pending = start + len(pending), 0, []
            began = time.perf_counter()
    if pending:
        yield Task(unit, start, len(pending), tuple(pending))


def checked(unit: int, keys: Sequence[str], samples: Iterable[RawSample]) -> Iterator[RawSample]:
    """Passes samples on that begin with these keys; StoreError where they do not.

    Then the stream is not the one that the store was begun with, and nothing is to be lost.
    """
    expected = iter(keys)
    for raw in samples:
        key = next(expected, raw.row.key)
        if key != raw.row.key:
            raise another_stream(f"unit {unit} has {key!r} where the stream has {raw.row.key!r}")
        yield raw
    missing = next(expected, None)
    if missing is not None:
        raise another_stream(f"unit {unit} has {missing!r} where the stream is at its end")


def another_stream(difference: str) -> StoreError:
    """The error of a stream that does not go with its store."""
    return StoreError(
        "Standard input is another stream than the one that the store was started with:"
        f" {difference}. Give the same stream, or choose another output folder (-o); nothing was"
        " changed in the store."
    )


def timed_reads(samples: Iterable[RawSample], meter: Meter) -> Iterator[RawSample]:
    """Passes samples on, with the time spent on each noted as reading."""
    stream = iter(samples)
    while True:
        start = time.perf_counter()
        raw = next(stream, None)
        meter.add("read", time.perf_counter() - start, 0 if raw is None else 1)
        if raw is None:
            return
        yield raw
