"""Compares an export with its store: each file is made again, in memory."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from latentcli.core.errors import StoreError, UsageError
from latentcli.exports.format import File
from latentcli.exports.formats import export_format
from latentcli.jobs.export.journal import digest_of, read_journal
from latentcli.jobs.export.labels import AUTO
from latentcli.jobs.export.options import ExportJob
from latentcli.jobs.export.plan import ExportPlan, plan_export
from latentcli.jobs.export.steps import steps_of
from latentcli.jobs.export.write import output_folder
from latentcli.jobs.runtime.meter import Meter
from latentcli.jobs.runtime.reporter import Reporter


def check_export(job: ExportJob, reporter: Reporter) -> dict[str, Any]:
    """The --json document; StoreError where a file is missing, or is not what the store gives."""
    folder = output_folder(job.check or "")
    journal = read_journal(folder)
    if journal is None:
        there = "it has no journal of an export" if folder.exists() else "there is no such folder"
        raise StoreError(
            f"{folder} is not an export of latentcli: {there}. Name the --output of one."
        )
    about = journal.about
    check_options_of(job, folder, about)
    plan = plan_export(
        replace(
            job,
            to=about["format"],
            arch=about["arch"],
            latents=about["latents"],
            file_dtype=about["dtype"],
            sample=about["sample"],
            labels=about["labels"],
            samples_per_file=about["step"] if export_format(about["format"]).group else None,
            bytes_column=about["bytes_column"],
            output=None,
            link_images=False,
            force=True,
        )
    )
    began = time.perf_counter()
    check_store(plan, folder, about)
    missing = [step for step in range(plan.steps) if step not in journal.steps]
    if missing:
        raise StoreError(
            f"{folder} is not complete: {len(missing):,} of {plan.steps:,} steps are missing. Run"
            " the export again."
        )
    wrong = compared(plan, folder, reporter)
    if wrong:
        first = next(iter(wrong.items()))
        raise StoreError(
            f"{folder} does not match {plan.store.path}: {len(wrong):,} differ, such as"
            f" {first[0]}: {first[1]}. Delete these files and run the export again; it writes what"
            " is missing."
        )
    return {
        "store": str(plan.store.path),
        "output": str(folder),
        **plan.identity(),
        "samples": plan.count,
        "wrong": wrong,
        "seconds": round(time.perf_counter() - began, 3),
    }


def check_options_of(job: ExportJob, folder: Path, about: Mapping[str, Any]) -> None:
    """UsageError where an option says that the export is another, or makes no sense here."""
    given = {
        "--to": (job.to, about["format"]),
        "--arch": (job.arch, about["arch"]),
        "--dtype": (job.file_dtype, about["dtype"]),
        "--latents": (job.latents, about["latent_space"].rpartition("#")[2]),
        "--sample": (job.sample, about["sample"]),
        "--samples-per-file": (job.samples_per_file, about["step"]),
        "--bytes-column": (job.bytes_column or None, about["bytes_column"]),
        "--labels": (None if job.labels == AUTO else job.labels, about["labels"]),
    }
    for option, (wanted, found) in given.items():
        if wanted not in (None, found):
            raise UsageError(
                f"{option} is {wanted!r}, and {folder} was exported with {found!r}. --check needs"
                " no such options: the folder knows them."
            )
    if job.output is not None or job.link_images:
        raise UsageError("--check writes nothing: leave out --output and --link-images.")


def check_store(plan: ExportPlan, folder: Path, about: Mapping[str, Any]) -> None:
    """StoreError where the export is of another store, or of an older state of this one."""
    if plan.manifest.spec_hash != about["spec"]:
        raise StoreError(f"{folder} is an export of another store than {plan.store.path}.")
    if digest_of(plan.store) != about["store"]:
        raise StoreError(
            f"{plan.store.path} has changed since {folder} was exported, or is another store: run"
            " the export again, which writes all files again."
        )


def compared(plan: ExportPlan, folder: Path, reporter: Reporter) -> dict[str, str]:
    """What is wrong with each file that is not what it should be."""
    wrong: dict[str, str] = {}
    expected: set[str] = set()
    facts = []
    meter = Meter("export", plan.count, reporter.progress, noun="latents")
    meter.begin()
    for step, samples in steps_of(plan.work, range(plan.steps)):
        group = plan.format.write(samples, step, plan.setting)
        facts.append(dict(group.facts))
        expected.update(file.path for file in group.files)
        wrong |= {file.path: why for file in group.files if (why := difference(plan, folder, file))}
        meter.advance(len(samples))
    last = plan.format.finish(facts, plan.setting)
    wrong |= {file.path: why for file in last if (why := difference(plan, folder, file))}
    return wrong | strangers(plan, folder, {*expected, *(file.path for file in last)})


def strangers(plan: ExportPlan, folder: Path, expected: Collection[str]) -> dict[str, str]:
    """Files of other origin that readers take for part of the data set, as they take all."""
    if not (plan.format.group or plan.format.alone):
        return {}
    endings = {PurePosixPath(path).suffix for path in expected}
    found = (
        path.relative_to(folder).as_posix()
        for path in sorted(folder.rglob("*"))
        if path.suffix in endings and not path.name.startswith(".") and path.is_file()
    )
    return {
        path: "it does not belong to this export, and readers would take it"
        for path in found
        if path not in expected
    }


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
    return "its bytes differ"
