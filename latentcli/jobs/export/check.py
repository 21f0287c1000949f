"""Compares an export with its store: each file is made again, in memory."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from latentcli.core.errors import StoreError
from latentcli.exports.format import File
from latentcli.jobs.export.journal import digest_of, read_journal
from latentcli.jobs.export.options import ExportJob
from latentcli.jobs.export.plan import ExportPlan, plan_export
from latentcli.jobs.export.steps import steps_of
from latentcli.jobs.export.write import output_folder
from latentcli.jobs.runtime.meter import Meter
from latentcli.jobs.runtime.reporter import Reporter

SHOWN = 20
"""Files that the document names."""


def check_export(job: ExportJob, reporter: Reporter) -> dict[str, Any]:
    """The --json document; StoreError where a file is missing, or is not what the store gives."""
    folder = output_folder(job.check or "")
    journal = read_journal(folder)
    if journal is None:
        raise StoreError(f"{folder} is no export of latentcli: it has no journal of one.")
    about = journal.about
    plan = plan_export(
        replace(
            job,
            to=about["format"],
            arch=about["arch"],
            latents=about["latents"],
            file_dtype=about["dtype"],
            sample=about["sample"],
            labels=about["labels"],
            samples_per_file=about["step"],
            bytes_column=about["bytes_column"],
            output=None,
            link_images=False,
            force=True,
        )
    )
    began = time.perf_counter()
    wrong = {} if digest_of(plan.store) == about["store"] else {"store": "it has changed since"}
    missing = [step for step in range(plan.steps) if step not in journal.steps]
    if missing:
        raise StoreError(
            f"{folder} is not complete: {len(missing):,} of {plan.steps:,} steps are missing. Run"
            " the export again."
        )
    wrong |= compared(plan, folder, reporter)
    shown = dict(list(wrong.items())[:SHOWN])
    if wrong:
        first = next(iter(wrong.items()))
        raise StoreError(
            f"{folder} is not what {plan.store.path} gives: {len(wrong):,} differ, such as"
            f" {first[0]}: {first[1]}. Delete these files and run the export again; it writes what"
            " is missing."
        )
    return {
        "store": str(plan.store.path),
        "output": str(folder),
        **plan.identity(),
        "samples": plan.count,
        "wrong": shown,
        "seconds": round(time.perf_counter() - began, 3),
    }


def compared(plan: ExportPlan, folder: Path, reporter: Reporter) -> dict[str, str]:
    """What is wrong with each file that is not what it should be."""
    wrong: dict[str, str] = {}
    facts = []
    meter = Meter("export", plan.count, reporter.progress, noun="latents")
    meter.begin()
    for step, samples in steps_of(plan, range(plan.steps)):
        group = plan.format.write(samples, step, plan.setting)
        facts.append(dict(group.facts))
        wrong |= {file.path: why for file in group.files if (why := difference(plan, folder, file))}
        meter.advance(len(samples))
    last = plan.format.finish(facts, plan.setting)
    return wrong | {file.path: why for file in last if (why := difference(plan, folder, file))}


def difference(plan: ExportPlan, folder: Path, file: File) -> str | None:
    """How a file differs from what it should be; None where it does not."""
    try:
        found = (folder / file.path).read_bytes()
    except OSError:
        return "it is missing"
    if found == file.data:
        return None
    if plan.format.merge is not None:
        try:
            if plan.format.merge(found, bytes(file.data)) == found:
                return None
        except ValueError:
            return "it is damaged"
    return "it has other bytes"
