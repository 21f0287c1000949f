"""Counts failed inputs of an encode job, and ends it where they are too many."""

from __future__ import annotations

from latentcli.core.errors import LatentCliError, TooManyFailures
from latentcli.core.types import Row
from latentcli.jobs.encode.run import EncodeRun
from latentcli.jobs.failures import allowed_failures

FEWEST_SEEN = 1000
"""Inputs that a share of --max-bad is taken of at least, while their number is not known."""


FAILED, SEEN = "failed", "seen"
"""Totals of a team, earlier runs' among them: failed samples, and all samples of tars."""


def fail(run: EncodeRun, row: Row) -> None:
    """Counts a failed row; the job ends here with --on-error stop, or where --max-bad is passed."""
    if run.job.on_error == "stop":
        raise LatentCliError(
            f"{row.source} failed at {row.stage}: {row.error}. The job stops at the first failure"
            " (--on-error stop); what is committed stays, and the same command goes on."
        )
    # Of clips, the frames are counted.
    run.meter.advance(1 if run.plan.clips is None else 0, 1)
    failed = run.team.add(FAILED, 1)
    if run.job.max_bad is not None:
        check_bad(run, run.job.max_bad, failed, row)


def check_bad(run: EncodeRun, max_bad: str, failed: int, row: Row) -> None:
    """TooManyFailures where more inputs of the store have failed than --max-bad allows."""
    inputs = len(run.inputs)
    if run.reader.packed:
        inputs = max(run.team.total(SEEN), FEWEST_SEEN)
    allowed = allowed_failures(max_bad, inputs)
    if failed > allowed and max_bad.strip() != "100%":
        raise TooManyFailures(
            f"The job stopped: {failed:,} inputs failed, and --max-bad {max_bad} allows"
            f" {allowed:,} of {inputs:,}. The last was {row.source}, at {row.stage}: {row.error}."
            " What is committed stays; see what is wrong with the inputs, or give a larger"
            " --max-bad to go on with the same command."
        )
