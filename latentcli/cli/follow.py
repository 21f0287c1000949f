"""Has a job followed by what its options name: a log, a file of metrics, a service."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from latentcli.jobs.cluster.environment import rank_of
from latentcli.jobs.settings.follow import FollowSettings

if TYPE_CHECKING:
    from latentcli.jobs.runtime.broadcast import Broadcast


def followed(job: FollowSettings, verb: str, note: Callable[[str], object]) -> Broadcast | None:
    """What gives the job's events to its followers, once it is released; None where it has none.

    UsageError where one of them cannot be.
    """
    asked = (job.log_json, job.metrics_file, job.track)
    if asked == (None, None, None):
        return None
    from latentcli.jobs.runtime.followers import followers, started

    rank = rank_of(os.environ)
    facts: dict[str, Any] = {
        "verb": verb,
        "store": getattr(job, "store", None) or getattr(job, "output", None),
        "model": model_of(job),
        "rank": rank.rank,
        "world": rank.world,
    }
    return started(followers(*asked, note), facts, note)


def model_of(job: FollowSettings) -> str | None:
    """The model that is asked for, or several with commas; None where none is yet."""
    several = getattr(job, "models", ())
    return ",".join(several) if several else getattr(job, "model", None)
