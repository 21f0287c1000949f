"""Defines how a job reports to whoever runs it: notes and status in words, progress in figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from latentcli.jobs.runtime.meter import Listener, ignore


@dataclass(frozen=True, slots=True)
class Committed:
    """A unit of a store whose shard and commit record are written."""

    unit: int
    encoded: int
    """Samples in it that have latents."""
    failed: int
    bytes: int
    """Of its shard."""
    rank: int = 0
    """Of the process that wrote it."""


@dataclass(frozen=True, slots=True)
class Reporter:
    """Callables for all that a job has to say; a job never prints."""

    note: Callable[[str], None] = ignore
    """One plain sentence that a person should see, such as which model is used and why."""
    progress: Listener = ignore
    """Called after every batch."""
    status: Callable[[str], None] = ignore
    """What the job is at before it has figures, such as "Loading the model"."""
    committed: Callable[[Committed], None] = ignore
    """Called for every unit once it is written; from any thread."""
    about: Callable[[str, str], None] = ignore
    """Told once which store and which model it is, where they are known."""


SILENT = Reporter()
"""A job that nobody listens to."""
