"""Defines how a job reports to whoever runs it: notes and status in words, progress in figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from latentcli.jobs.runtime.meter import Listener, ignore


@dataclass(frozen=True, slots=True)
class Reporter:
    """Three callables; a job never prints."""

    note: Callable[[str], None] = ignore
    """One plain sentence that a person should see, such as which model is used and why."""
    progress: Listener = ignore
    """Called after every batch."""
    status: Callable[[str], None] = ignore
    """What the job is at before it has figures, such as "Loading the model"."""


SILENT = Reporter()
"""A job that nobody listens to."""
