"""Holds the job of watch as a frozen dataclass of options; importing this loads no torch."""

from __future__ import annotations

from dataclasses import dataclass

from latentcli.core.options import like, option
from latentcli.jobs.store.config import VerifyJob


@dataclass(frozen=True, kw_only=True)
class WatchJob:
    """A store to how far the job is that writes to it."""

    store: str = like(VerifyJob, "store", section="", help="Folder or URL of a store.")
    once: bool = option(
        False,
        "Show the present state once, and end. Default: off, until the job has ended.",
        flags=("--once",),
    )
    every: float | None = option(
        None,
        "Seconds between two looks. Default: 2, and 30 at a URL.",
        least=0.1,
        metavar="S",
    )
