"""Runs an export: in steps, each of which is there whole or is done again."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from latentcli.core.errors import UsageError
from latentcli.core.options import check_options
from latentcli.jobs.export.check import check_export
from latentcli.jobs.export.journal import (
    VERSION,
    Journal,
    cut_last_line,
    digest_of,
    read_journal,
    start_journal,
)
from latentcli.jobs.export.links import check_links, lay
from latentcli.jobs.export.options import ExportJob
from latentcli.jobs.export.plan import ExportPlan, plan_export
from latentcli.jobs.export.steps import steps_of
from latentcli.jobs.export.write import THREADS, Writer, output_folder
from latentcli.jobs.runtime.meter import Meter
from latentcli.jobs.runtime.reporter import SILENT, Reporter
from latentcli.jobs.runtime.signals import stop_on_signals
from latentcli.shards.sources.own_output import OUTPUT, mark


def run_export(job: ExportJob, reporter: Reporter = SILENT) -> dict[str, Any]:
    """Writes a store's latents as a trainer wants them, or compares them; the --json document.

    StoreError and UsageError as of `plan_export`; UsageError where the folder holds another export.
    """
    check_options(job)
    if job.check is not None:
        return check_export(job, reporter)
    plan = plan_export(job)
    if job.link_images:
        check_links(plan.format, plan.reading.packed)
    folder = output_folder(job.output or default_output(plan))
    began = time.perf_counter()
    with stop_on_signals("Run the same command again to finish the rest.") as stop:
        journal = open_journal(plan, folder, reporter)
        todo = [step for step in range(plan.steps) if not journal.is_done(step)]
        writer = Writer(folder, plan.format.merge)
        meter = Meter("export", plan.count, reporter.progress, noun="latents")
        meter.begin()
        with ThreadPoolExecutor(THREADS) as pool:
            for step, samples in steps_of(plan, todo):
                stop.check()
                group = plan.format.write(samples, step, plan.setting)
                files = list(group.files)
                if job.link_images:
                    files += lay(samples, plan.format, folder)
                journal.add(step, writer.write(files, pool), group.facts)
                meter.advance(len(samples))
            last = plan.format.finish(journal.facts(plan.steps), plan.setting)
            writer.write(last, pool)
        remove_stale(journal, {*journal.files(), *(file.path for file in last)}, folder)
    return document(plan, folder, journal, todo, round(time.perf_counter() - began, 3))


def open_journal(plan: ExportPlan, folder: Path, reporter: Reporter) -> Journal:
    """The journal of the folder, gone on with where it is of this export.

    Where the store changed since, all is written anew. UsageError where the folder holds another
    export, or, for a format that fills a folder, other files.
    """
    about = {"version": VERSION, "store": digest_of(plan.store)} | plan.identity()
    journal = read_journal(folder)
    if journal is None:
        new = not folder.exists()
        if plan.format.group and not new and any(folder.iterdir()):
            raise UsageError(
                f"{folder} is not empty, and readers of {plan.format.name} take all files of their"
                " folder: name another --output."
            )
        folder.mkdir(parents=True, exist_ok=True)
        if new:
            mark(folder, OUTPUT)
        return start_journal(folder, about)
    differs = [name for name in about if name != "store" and about[name] != journal.about.get(name)]
    if differs:
        what = ", ".join(f"{n} {journal.about.get(n)!r}, not {about[n]!r}" for n in differs)
        raise UsageError(f"{folder} holds another export ({what}): name another --output.")
    if about["store"] == journal.about["store"]:
        cut_last_line(journal)
        return journal
    reporter.note("The store has changed since: all files are written anew.")
    return start_journal(folder, about | {"before": sorted({*journal.files(), *before(journal)})})


def before(journal: Journal) -> list[str]:
    """Files of an older export of a store that has changed since."""
    return list(journal.about.get("before", ()))


def remove_stale(journal: Journal, files: set[str], folder: Path) -> None:
    """Deletes files of samples that are no longer in the store."""
    for name in before(journal):
        if name not in files:
            (folder / name).unlink(missing_ok=True)


def default_output(plan: ExportPlan) -> str:
    """<store name>.<format>."""
    return f"{plan.store.path.name.removesuffix('.latents')}.{plan.format.name}"


def document(
    plan: ExportPlan, folder: Path, journal: Journal, todo: list[int], seconds: float
) -> dict[str, Any]:
    """The --json document."""
    lines = journal.steps.values()
    return {
        "store": str(plan.store.path),
        "output": str(folder),
        **plan.identity(),
        "samples": plan.count,
        "files": sum(len(line["files"]) for line in lines),
        "bytes": sum(size for line in lines for _, size in line["files"]),
        "steps": plan.steps,
        "steps_done_before": plan.steps - len(todo),
        "forced": plan.setting.forced,
        "geometry": plan.geometry.settings(),
        "advice": list(plan.format.advice(plan.setting)),
        "seconds": seconds,
    }
