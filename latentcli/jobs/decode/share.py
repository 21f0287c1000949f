"""Shares the units of a store among the processes of a decode job, and joins what they report."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from latentcli.core.errors import UsageError
from latentcli.jobs.cluster.team import Team
from latentcli.jobs.config import DecodeJob
from latentcli.jobs.decode.latents import LatentSource
from latentcli.jobs.decode.output import DecodeRun
from latentcli.jobs.runtime.signals import StopRequest
from latentcli.shards.store.presence import AGAIN, repair_advice

SUMS = ("decoded", "frames", "skipped", "failed")
"""What a document counts of this process's share."""
REASONS = ("reasons", "reason_examples")
"""Groups of failures."""


def agreed(job: DecodeJob, source: LatentSource, team: Team, stop: StopRequest) -> LatentSource:
    """The source, with the units that the first process found in it.

    UsageError where this process was started with other options than the first.
    """
    if team.rank.leader:
        team.broadcast(json.dumps({"job": asdict(job), "units": list(source.units)}))
        return source
    plan = json.loads(team.receive(stop.check))
    if plan["job"] != json.loads(json.dumps(asdict(job))):
        raise UsageError(
            f"Process {team.rank.rank} was started with other options than process 0: start all of"
            " them with the same command."
        )
    return replace(source, units=plan["units"])


def together(run: DecodeRun, own: dict[str, Any]) -> dict[str, Any]:
    """The --json document of the whole job, in the first process; empty in the others.

    Errors of the other processes as `Team.wait_for_all`.
    """
    team = run.team
    if not team.rank.leader:
        team.report(json.dumps({name: own[name] for name in (*SUMS, "failures", *REASONS)}))
        return {}
    team.done()
    team.wait_for_all(run.stop.check)
    reasons, examples = Counter(own["reasons"]), own["reason_examples"]
    for report in map(json.loads, team.reports()):
        own |= {name: total(own, report, name) for name in SUMS}
        own["failures"] += report["failures"]
        reasons.update(report["reasons"])
        examples = report["reason_examples"] | examples
    told = {"reasons": dict(reasons), "reason_examples": examples}
    return own | told | {"advice": advice(run, own["failures"])}


def advice(run: DecodeRun, failures: Sequence[Mapping[str, Any]]) -> str | None:
    """What makes units again that could not be read, or are missing; None where all could."""
    if run.source.gaps:
        return AGAIN
    unreadable = any("unit" in failure for failure in failures)
    return repair_advice(run.source.path) if unreadable else None


def total(own: Mapping[str, Any], other: Mapping[str, Any], name: str) -> int | None:
    """The sum of a count that pictures may not have."""
    return None if own[name] is None else own[name] + other[name]
