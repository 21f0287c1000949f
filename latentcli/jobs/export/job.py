"""Runs an export: in steps, each of which is there whole or is done again."""

from __future__ import annotations

import gc
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

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
from latentcli.jobs.export.links import Links
from latentcli.jobs.export.options import ExportJob
from latentcli.jobs.export.plan import ExportPlan, plan_export
from latentcli.jobs.export.processes import made_steps
from latentcli.jobs.export.steps import Maker
from latentcli.jobs.export.write import Writer
from latentcli.jobs.runtime.meter import Meter
from latentcli.jobs.runtime.places import try_outside_stores
from latentcli.jobs.runtime.reporter import SILENT, Reporter
from latentcli.jobs.runtime.signals import StopRequest, stop_on_signals
from latentcli.shards.sources.own_output import OUTPUT, mark
from latentcli.shards.store.lock import StoreLock

OPTIONS = {"step": "--samples-per-file", "bytes_column": "--bytes-column"}
"""What the parts of an export's identity are called, where a person knows another name."""


def run_export(job: ExportJob, reporter: Reporter = SILENT) -> dict[str, Any]:
    """Writes a store's latents as a trainer wants them, or compares them; the --json document.

    StoreError and UsageError as of `plan_export`; UsageError where the folder holds another export.
    """
    check_options(job)
    with one_thread(), set_aside():
        return export(job, reporter) if job.check is None else check_export(job, reporter)


def export(job: ExportJob, reporter: Reporter) -> dict[str, Any]:
    """Writes an export."""
    plan = plan_export(job)
    unlinked: set[int] = set()
    if job.link_images:
        unlinked = Links(plan.format, plan.folder).missing(plan.rows, plan.reading.packed)
    try_outside_stores("--output", str(plan.folder))
    is_new = check_folder(plan)
    began = time.perf_counter()
    with (
        stop_on_signals("Run the same command again to finish the rest.") as stop,
        StoreLock(plan.folder),
    ):
        journal = open_journal(plan, reporter, is_new)
        todo = steps_to_do(plan, journal, unlinked)
        write_steps(plan, journal, todo, stop, reporter)
    return document(plan, journal, todo, round(time.perf_counter() - began, 3))


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch computes on one thread: so little at a time is done sooner than others are woken."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def set_aside() -> Iterator[None]:
    """What is there already is not looked through for garbage.

    That of the libraries is half a million objects, and Python would look at all of them again and
    again while it reads rows. A command has set it aside for good.
    """
    if gc.get_freeze_count():
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def steps_to_do(plan: ExportPlan, journal: Journal, unlinked: Collection[int]) -> list[int]:
    """Steps that have a file, or where they are wanted a link, that is not there.

    `unlinked` are samples without their link.
    """
    lacking = {number // plan.step for number in unlinked}
    return [
        step
        for step in range(plan.steps)
        if not journal.is_done(step)
        or step in lacking
        or (plan.job.link_images and not journal.is_linked(step))
    ]


def write_steps(
    plan: ExportPlan,
    journal: Journal,
    todo: list[int],
    stop: StopRequest,
    reporter: Reporter,
) -> None:
    """Writes the files of the steps, then those of the whole, and deletes what is out of date."""
    ours = frozenset({*journal.files(), *before(journal)})
    maker = Maker(plan.work, ours, plan.job.link_images)
    meter = Meter("export", plan.count, reporter.progress, noun="latents")
    meter.begin()
    with closing(made_steps(maker, todo, plan.job.workers, reporter.note)) as made:
        for some in made:
            journal.add(some, linked=plan.job.link_images)
            meter.advance(sum(one.samples for one in some))
            stop.check()
    last = plan.format.finish(journal.facts(plan.steps), plan.setting)
    Writer(plan.folder, plan.format.merge, ours).write(last)
    remove_stale(journal, {*journal.files(), *(file.path for file in last)}, plan.folder)


def check_folder(plan: ExportPlan) -> bool:
    """Whether the folder is not there yet.

    UsageError where it holds files that readers of the format would take for ours.
    """
    folder = plan.folder
    if not folder.exists():
        return True
    alone = plan.format.group or plan.format.alone
    if alone and read_journal(folder) is None and any(folder.iterdir()):
        raise UsageError(
            f"{folder} is not empty, and readers of {plan.format.name} take all files of their"
            " folder: name another --output."
        )
    return False


def open_journal(plan: ExportPlan, reporter: Reporter, is_new: bool) -> Journal:
    """The journal of the folder, gone on with where it is of this export.

    Where the store changed since, all is written anew; so it is where the files of another store
    are joined with those of this one. UsageError where the folder holds another export.
    """
    folder = plan.folder
    about = {"version": VERSION, "spec": plan.manifest.spec_hash, "store": digest_of(plan.store)}
    about |= plan.identity()
    journal = read_journal(folder)
    if journal is None:
        if is_new:
            mark(folder, OUTPUT)
        return start_journal(folder, about)
    differs = [name for name in about if about[name] != journal.about.get(name)]
    if not differs:
        cut_last_line(journal)
        return journal
    if plan.setting.variant.joins and set(differs) <= {"store", "spec"} and "spec" in differs:
        reporter.note("The folder has files of another store; the files of this one are added.")
        return start_journal(folder, about)
    if not journal.steps and not before(journal):
        # Nothing was written, such as where the dtype turned out to be too small.
        return start_journal(folder, about)
    if differs != ["store"]:
        raise UsageError(
            f"{folder} holds another export ({differences(journal.about, about, differs)}): name"
            " another --output, or give the options of that export."
        )
    reporter.note("The store has changed since the last export: all files are written again.")
    return start_journal(folder, about | {"before": sorted({*journal.files(), *before(journal)})})


def differences(there: Mapping[str, Any], about: Mapping[str, Any], names: Sequence[str]) -> str:
    """How two exports differ, in words; `names` are those that have different values."""
    found = [
        f"{OPTIONS.get(name, name)} {there.get(name)!r}, not {about[name]!r}"
        for name in names
        if name not in ("store", "spec")
    ]
    # Digests tell a person nothing.
    return ", ".join([*found, *["of another store, or of one made otherwise"] * ("spec" in names)])


def before(journal: Journal) -> list[str]:
    """Files of an older export of a store that has changed since."""
    return list(journal.about.get("before", ()))


def remove_stale(journal: Journal, files: set[str], folder: Path) -> None:
    """Deletes files of samples that are no longer in the store."""
    for name in before(journal):
        if name not in files:
            (folder / name).unlink(missing_ok=True)


def document(plan: ExportPlan, journal: Journal, todo: list[int], seconds: float) -> dict[str, Any]:
    """The --json document."""
    lines = journal.steps.values()
    sizing = plan.setting.sizing
    return {
        "store": str(plan.store.path),
        "output": str(plan.folder),
        **plan.identity(),
        "samples": plan.count,
        "files": sum(len(line["files"]) for line in lines),
        "bytes": sum(size for line in lines for _, size in line["files"]),
        "steps": plan.steps,
        "steps_done_before": plan.steps - len(todo),
        "forced": plan.setting.forced,
        "sizing": None if sizing is None else asdict(sizing),
        "warnings": list(plan.warnings),
        "advice": [
            *plan.format.advice(plan.setting),
            *plan.format.closing(journal.facts(plan.steps), plan.setting),
        ],
        "seconds": seconds,
    }
