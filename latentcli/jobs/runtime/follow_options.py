"""Says which values the options take that tell a job's progress elsewhere; loads nothing heavy."""

from __future__ import annotations

from latentcli.core.errors import UsageError
from latentcli.jobs.runtime.stdio import STDOUT

LOG_OPTION, METRICS_OPTION = "--log-json", "--metrics-file"
TRACKERS = ("wandb",)
SUFFIX = ".prom"
"""Of the files that Prometheus's textfile collector reads."""


def check_log(text: str) -> None:
    """UsageError for what can be no file of events."""
    if text == STDOUT:
        raise UsageError(
            f"{LOG_OPTION} - would mix with the data on standard output; name a file, or"
            " /dev/stderr."
        )
    if "://" in text:
        raise UsageError(
            f"{LOG_OPTION} {text} is a URL, and nothing can be appended to one; name a file of this"
            " machine."
        )


def check_metrics(text: str) -> None:
    """UsageError for what can be no file of metrics."""
    if not text.endswith(SUFFIX) or "://" in text:
        raise UsageError(
            f"{METRICS_OPTION} is {text!r}; name a file of this machine that ends in {SUFFIX}, as"
            " Prometheus's textfile collector reads no others."
        )
