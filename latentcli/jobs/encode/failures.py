"""Counts the failed and filtered inputs of an encode job, in all of its processes."""

from __future__ import annotations

from latentcli.core.types import FILTERED, Row
from latentcli.jobs.encode.run import EncodeRun
from latentcli.jobs.runtime.failures import Failures

FAILED, SEEN = "failed", "seen"
"""Totals of a team, earlier runs' among them: failed samples, and all samples of tars."""


def count_refused(run: EncodeRun, row: Row) -> None:
    """Counts a row without a latent: one that failed, or that a filter refused."""
    if row.status == FILTERED:
        run.meter.advance(1 if run.plan.clips is None else 0)
    else:
        fail(run, row)


def fail(run: EncodeRun, row: Row) -> None:
    """Counts a failed row; the job ends here where its options say so."""
    # Of clips, the frames are counted.
    run.meter.advance(1 if run.plan.clips is None else 0, 1)
    failed, packed = run.team.add(FAILED, 1), run.reader.packed
    failures = Failures(
        *(run.job.on_error, run.job.max_bad, None if packed else len(run.inputs)),
        *("what is committed stays", "the same command"),
        seen=run.team.total(SEEN) if packed else 0,
    )
    failures.judge(failed, row.source, f"{row.stage}: {row.error}")
