"""Takes the samples of an export in steps, each of which makes whole files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import overload

from latentcli.exports.format import ExportSample
from latentcli.jobs.export.plan import ExportPlan


class LazySamples(Sequence[ExportSample]):
    """Samples in a row that are read while they are gone through, and read again the next time."""

    def __init__(self, plan: ExportPlan, start: int) -> None:
        self._plan = plan
        self._start = start
        self._count = min(plan.step, plan.count - start)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[ExportSample]:
        return islice(self._plan.reading.samples(self._start), self._count)

    @overload
    def __getitem__(self, at: int) -> ExportSample: ...
    @overload
    def __getitem__(self, at: slice) -> list[ExportSample]: ...
    def __getitem__(self, at: int | slice) -> ExportSample | list[ExportSample]:
        return list(self)[at]


def steps_of(plan: ExportPlan, todo: Sequence[int]) -> Iterator[tuple[int, Sequence[ExportSample]]]:
    """The steps to do, and their samples, read in the order of the store."""
    if plan.format.lazy:
        yield from ((step, LazySamples(plan, step * plan.step)) for step in todo)
        return
    start = None
    samples: Iterator[ExportSample] = iter(())
    for step in todo:
        if step * plan.step != start:
            samples = plan.reading.samples(step * plan.step)
        taken = list(islice(samples, plan.step))
        start = step * plan.step + len(taken)
        yield step, taken
