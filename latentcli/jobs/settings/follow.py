"""Holds the options of where a job tells its progress, which several jobs share.

Importing this loads no torch.
"""

from __future__ import annotations

from dataclasses import dataclass

from latentcli.core.options import option
from latentcli.jobs.runtime.follow_options import TRACKERS, check_log, check_metrics


@dataclass(frozen=True, kw_only=True)
class FollowSettings:
    """Where the progress of a job is told besides standard error (docs/guides/watching.md)."""

    log_json: str | None = option(
        None,
        "Append to this file a line of JSON every 5 seconds, and for each unit that is written."
        " Default: none.",
        section="follow",
        metavar="FILE",
        check=check_log,
    )
    metrics_file: str | None = option(
        None,
        "Keep the job's figures in this file, which must end in .prom, for the textfile collector"
        " of Prometheus (needs latentcli[prometheus]). Default: none.",
        section="follow",
        metavar="FILE.prom",
        check=check_metrics,
    )
    track: str | None = option(
        None,
        "wandb: send the job's figures to Weights & Biases (needs latentcli[wandb]). Default: send"
        " none.",
        section="follow",
        choices=TRACKERS,
    )
