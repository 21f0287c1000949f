"""Tars, or the stream of one, in; tasks of samples whose bytes are read already out."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from latentcli.core.errors import StoreError, UsageError
from latentcli.core.types import InputRow, Row, Sample
from latentcli.jobs.loader.prepare import RawSample, Task
from latentcli.jobs.loader.tar_stream import Digesting, open_tar
from latentcli.jobs.runtime.meter import Meter
from latentcli.jobs.runtime.stdio import go_on
from latentcli.shards.sources.expand import PIPE
from latentcli.shards.store.commit import TarOrigin
from latentcli.shards.tar.read import ByteStream
from latentcli.shards.tar.samples import payload, read_samples

TASK_SAMPLES, TASK_BYTES = 8, 4 * 2**20
"""A task is full with so many samples, or with samples of so many bytes."""
SLOW = 0.2
"""Seconds after which a task goes out with what has come: a slow pipe must not hold it up."""
HELD = 64 * 2**20
"""Bytes of a stream's last, short unit that wait for its end, in case nothing in it is new."""
SEPARATOR = "::"
"""Stands between a tar and a member in the source of a row."""


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
class TarIntake:
    """Reads tars one after the other; one object per job, used by one thread at a time."""

    suffixes: frozenset[str]
    """Of the files in a sample that are its picture or clip, lower case with the dot."""
    meter: Meter
    split: int | None = None
    """A stream has no end that is known: every so many samples are a unit of their own."""
    known: Callable[[int], Known] = lambda unit: Known()
    """Of a stream: what there is of a unit."""
    check: Callable[[], None] = go_on
    """Called while a pipe gives nothing; may raise."""
    origins: dict[int, TarOrigin] = field(default_factory=dict)
    """By unit, once its last task is out."""
    units: int = 0
    """Units of a stream so far."""
    passed: set[int] = field(default_factory=set)
    """Those of them that were done."""

    def tasks(self, rows: Iterable[InputRow]) -> Iterator[Task]:
        """Tasks of the rows' tars, in order; every unit has at least one, its last one says so."""
        for row in rows:
            with open_tar(row.source, self.check) as stream:
                if self.split is not None:
                    yield from self._stream(timed(self.samples(row, stream), self.meter), row)
                    continue
                digesting = Digesting(stream)
                yield from grouped(row.unit, timed(self.samples(row, digesting), self.meter))
                self.origins[row.unit] = TarOrigin(row.source, digesting.digest_of_all())
            yield Task(row.unit, 0, 0, (), True)

    def _stream(self, samples: Iterator[RawSample], row: InputRow) -> Iterator[Task]:
        """Units of `split` samples each, of which those that are done give no task."""
        assert self.split is not None
        for first in samples:
            unit, self.units = self.units, self.units + 1
            share = itertools.chain([first], itertools.islice(samples, self.split - 1))
            left = self._left(unit, share)
            if left is None:
                self.passed.add(unit)
                continue
            yield from grouped(unit, left)
            self.origins[unit] = TarOrigin(row.source, None)
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

    def samples(self, row: InputRow, stream: ByteStream) -> Iterator[RawSample]:
        """The samples of one tar, each with its row; refused ones too."""
        prefix = f"{row.key}/" if row.key else ""
        for sample in read_samples(stream, self.suffixes):
            yield self.raw(row.source, prefix, sample)

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
        "Standard input is another stream than the one that the store was begun with:"
        f" {difference}. Give the same stream, or choose another output folder (-o); nothing was"
        " changed in it."
    )


def refuse_commands(rows: Iterable[InputRow]) -> None:
    """UsageError where a row of a store is a shell command, which nobody allowed this time."""
    for row in rows:
        if row.source.startswith(PIPE):
            raise UsageError(
                f"unit {row.unit} of the store is made from the shell command {row.source}, and is"
                " to be encoded; --allow-pipe allows to run it."
            )


def timed(samples: Iterable[RawSample], meter: Meter) -> Iterator[RawSample]:
    """Passes samples on, with the time spent on each noted as reading."""
    stream = iter(samples)
    while True:
        start = time.perf_counter()
        raw = next(stream, None)
        meter.add("read", time.perf_counter() - start, 0 if raw is None else 1)
        if raw is None:
            return
        yield raw
