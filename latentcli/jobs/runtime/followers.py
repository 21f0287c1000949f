"""Makes what follows a job out of the options that ask for it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from latentcli import __version__
from latentcli.jobs.runtime.broadcast import Broadcast
from latentcli.jobs.runtime.events import Follower
from latentcli.jobs.runtime.json_log import JsonLog
from latentcli.jobs.runtime.metrics_file import MetricsFile
from latentcli.jobs.runtime.wandb_run import WandbRun
from latentcli.shards.store.holder import Holder

TRACKED: dict[str, Callable[[], Follower]] = {"wandb": WandbRun}
PATIENCE = 5.0
"""Seconds that the job waits for a disk to say whether a follower can write there."""


def followers(
    log_json: str | None,
    metrics_file: str | None,
    track: str | None,
    note: Callable[[str], object],
) -> list[Follower]:
    """A follower for each option that is given; UsageError where one of them cannot be.

    A disk that does not answer is told of by `note`, and the follower waits for it alone.
    """
    found: list[Follower] = []
    if log_json is not None:
        found.append(JsonLog(log_json))
    if metrics_file is not None:
        found.append(MetricsFile(metrics_file))
    if track is not None:
        found.append(TRACKED[track]())
    for follower in found:
        if not answers(follower, PATIENCE):
            note(
                f"{follower.name} has not answered for {PATIENCE:g} s. The job goes on without"
                " waiting for it."
            )
    return found


def answers(follower: Follower, patience: float) -> bool:
    """Whether the check of a follower ends within so many seconds; UsageError as the check."""
    problems: list[Exception] = []

    def check() -> None:
        try:
            follower.check()
        except Exception as error:
            problems.append(error)

    thread = threading.Thread(target=check, name="check of a follower", daemon=True)
    thread.start()
    thread.join(patience)
    if problems:
        raise problems[0]
    return not thread.is_alive()


def started(
    following: list[Follower], facts: dict[str, Any], note: Callable[[str], object]
) -> Broadcast:
    """A broadcast to them whose first event says which process the job is; it is to be released."""
    here = Holder.here()
    broadcast = Broadcast(following, facts, note)
    broadcast.start(
        {"host": here.host, "pid": here.pid, "command": here.command, "version": __version__}
    )
    return broadcast
