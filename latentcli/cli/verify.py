"""Defines `latentcli verify`, which checks that every file of a store is still right."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from latentcli.cli import words
from latentcli.cli.command import command
from latentcli.cli.output import Output
from latentcli.core.errors import StoreError
from latentcli.jobs.cluster.environment import refuse_ranks
from latentcli.jobs.runtime.process import loading
from latentcli.jobs.store.config import VerifyJob


@command(VerifyJob)
def verify(out: Output, job: VerifyJob, given: frozenset[str]) -> None:
    """Check every digest and count of a store, and encode a few inputs again."""
    refuse_ranks("verify", os.environ)
    with out.reporter(job, "verify") as reporter:
        with loading():
            from latentcli.jobs.store.verify import run_verify
            from latentcli.reports.tables import verify_tables

        document = run_verify(job, reporter)
    out.show(document, data=verify_tables)
    if not document["ok"]:
        problems = words.count(len(document["problems"]), "problem")
        cure = advice(document, job.repair)
        raise StoreError(f"{document['store']} failed the check: {problems}.{cure}")


def advice(document: Mapping[str, Any], repair: bool) -> str:
    """What to do about the problems, where a command helps."""
    again = "the encode command that made the store"
    if taken := document["repaired"]:
        units = words.count(len(taken), "unit")
        return f" Marked {units}. Run {again} again: it encodes them."
    if not repair and any(item["repairable"] for item in document["problems"]):
        return f" --repair marks the damaged units. Then run {again} again: it encodes them."
    return ""
