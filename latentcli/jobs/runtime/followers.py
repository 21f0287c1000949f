"""Makes what follows a job out of the options that ask for it."""

from __future__ import annotations

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


def followers(log_json: str | None, metrics_file: str | None, track: str | None) -> list[Follower]:
    """A follower for each option that is given; UsageError as each of them."""
    found: list[Follower] = []
    if log_json is not None:
        found.append(JsonLog(log_json))
    if metrics_file is not None:
        found.append(MetricsFile(metrics_file))
    if track is not None:
        found.append(TRACKED[track]())
    return found


def started(
    following: list[Follower], facts: dict[str, Any], note: Callable[[str], object]
) -> Broadcast:
    """A broadcast to them whose first event says which process the job is."""
    here = Holder.here()
    broadcast = Broadcast(following, facts, note)
    broadcast.start(
        {"host": here.host, "pid": here.pid, "command": here.command, "version": __version__}
    )
    return broadcast
