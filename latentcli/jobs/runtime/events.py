"""Describes what happens in a job as plain documents, for files and services that follow it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from latentcli.core.json_values import rounded_value
from latentcli.jobs.runtime.bottleneck import Interval
from latentcli.jobs.runtime.meter import Snapshot

START, STATUS, PROGRESS, UNIT, NOTE, END = "start", "status", "progress", "unit", "note", "end"
DIGITS = 3
"""Decimals of rates, seconds and shares."""

Event = Mapping[str, Any]
"""One thing that happened, as docs/guides/watching.md lists the fields."""


class Follower(Protocol):
    """What is given every event of a job."""

    name: str
    """What a note calls it, as the subject of a sentence."""
    patience: float
    """Seconds that the end of a job may wait until it has all events."""

    def check(self) -> None:
        """UsageError where it cannot be; may wait for a disk, but for no service."""

    def write(self, event: Event) -> None:
        """Takes an event; whatever it raises ends no job."""


@dataclass(slots=True)
class Progress:
    """Works out the figures of a job, of the time since they were last asked for and of all."""

    before: Snapshot | None = None
    """As it was then."""

    def figures(self, now: Snapshot, *, whole: bool = False) -> dict[str, Any]:
        """The fields of a progress event; with `whole`, stages and limit are those of all the job.

        Rates are items a second of wall time.
        """
        before, self.before = self.before, now
        if before is not None and (before.verb != now.verb or before.elapsed > now.elapsed):
            before = None  # a job of several parts has begun the next one
        interval = now.whole if whole or before is None else since(before, now)
        recent = now.rate if before is None else pace(before, now)
        verdict = interval.verdict()
        return counts(now) | {
            "elapsed": round(now.elapsed, DIGITS),
            "rate": rounded_value(now.rate if whole else recent, DIGITS),
            "rate_whole": rounded_value(now.rate, DIGITS),
            "eta": rounded_value(now.eta, DIGITS),
            "stages": stages(interval),
            "bottleneck": None if verdict is None else verdict.stage,
            "bottleneck_reason": None if verdict is None else verdict.sentence,
        }


def since(before: Snapshot, now: Snapshot) -> Interval:
    """The stages between two snapshots of a job."""
    after = now.recent
    return Interval(before.recent.now, after.now, after.groups, after.setting)


def pace(before: Snapshot, now: Snapshot) -> float:
    """Items a second between two snapshots."""
    span = now.elapsed - before.elapsed
    return (now.done - before.done) / span if span > 0 else 0.0


def counts(now: Snapshot | None) -> dict[str, Any]:
    """What is done of how much; None for each where nothing is known yet."""
    if now is None:
        return dict.fromkeys(("noun", "done", "total", "failed"))
    total = None if now.total_is_guess else now.total
    return {"noun": now.noun, "done": now.done, "total": total, "failed": now.failed}


def stages(interval: Interval) -> dict[str, dict[str, Any]]:
    """Each stage's rate, how many of its threads were busy on average, and how many there are."""
    return {
        view.name: {
            "rate": rounded_value(view.rate, DIGITS),
            "busy": rounded_value(view.busy, DIGITS),
            "threads": view.threads,
        }
        for view in interval.views()
    }


def now_utc() -> str:
    """The time by the clock on the wall: ISO 8601, UTC, in milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
