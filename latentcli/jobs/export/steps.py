"""Takes the samples of an export in steps, each of which makes whole files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from latentcli.exports.format import ExportSample
from latentcli.jobs.export.plan import ExportPlan


def steps_of(plan: ExportPlan, todo: Sequence[int]) -> Iterator[tuple[int, list[ExportSample]]]:
    """The steps to do, and their samples, read in the order of the store."""
    start = None
    samples: Iterator[ExportSample] = iter(())
    for step in todo:
        if step * plan.step != start:
            samples = plan.reading.samples(step * plan.step)
        taken = list(islice(samples, plan.step))
        start = step * plan.step + len(taken)
        yield step, taken
