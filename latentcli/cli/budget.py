"""Defines `latentcli budget`, which measures what each way to store latents takes and costs."""

from __future__ import annotations

import os

from latentcli.cli.command import command
from latentcli.cli.output import Output
from latentcli.jobs.cluster.environment import refuse_ranks
from latentcli.jobs.runtime.process import loading
from latentcli.jobs.store.budget_config import BudgetJob


@command(BudgetJob)
def budget(out: Output, job: BudgetJob, given: frozenset[str]) -> None:
    """Measure the size and the decode PSNR of each --store-dtype on a few images."""
    refuse_ranks("budget", os.environ)
    with out.reporter() as reporter:
        with loading():
            from latentcli.jobs.store.budget import run_budget
            from latentcli.reports.budget_table import budget_tables

        document = run_budget(job, reporter)
    out.show(document, data=budget_tables)
