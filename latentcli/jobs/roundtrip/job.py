"""Encodes and decodes pictures or clips in memory, and tells how close they come back."""

from __future__ import annotations

import math
import tempfile
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from latentcli.core.errors import LatentCliError, StoreError, UsageError
from latentcli.core.options import check_options
from latentcli.images.codec import DecodePolicy
from latentcli.images.preprocess import PreprocessSpec
from latentcli.jobs.config import RoundtripJob
from latentcli.jobs.inference.engine import inference_config
from latentcli.jobs.loader.clip_frames import ClipRecipe
from latentcli.jobs.loader.find_media import SUFFIXES, FoundMedia, check_clip_options, media_of
from latentcli.jobs.loader.loader import MANY, pick_workers
from latentcli.jobs.loader.packed_options import check_packed_options
from latentcli.jobs.loader.prepare import Intake, Recipe
from latentcli.jobs.loader.readers import READERS
from latentcli.jobs.loader.sizes import preprocess_spec, size_filter
from latentcli.jobs.loader.table_reader import absolute_root
from latentcli.jobs.roundtrip.cached import open_cached
from latentcli.jobs.roundtrip.compare import SIMILARITIES, Comparison
from latentcli.jobs.roundtrip.compiled import warm_up, with_codes
from latentcli.jobs.roundtrip.document import document
from latentcli.jobs.roundtrip.models import (
    ComparedModel,
    check_models,
    divisor,
    load_compared_models,
)
from latentcli.jobs.roundtrip.output_paths import check_output_paths
from latentcli.jobs.roundtrip.report import ReportWriter, encoder_groups
from latentcli.jobs.roundtrip.rows import RowSpool, csv_lines
from latentcli.jobs.roundtrip.single_page import check_count, check_single_page
from latentcli.jobs.roundtrip.stream import Roundtrip, compare_clips, compare_images
from latentcli.jobs.runtime.failures import Failures
from latentcli.jobs.runtime.meter import Meter
from latentcli.jobs.runtime.places import try_file, try_outside_stores
from latentcli.jobs.runtime.report_folder import check_report_folder
from latentcli.jobs.runtime.reporter import SILENT, Reporter
from latentcli.jobs.runtime.signals import stop_on_signals
from latentcli.metrics.measures import Measure, SetMeasure, open_measures, open_set_measures
from latentcli.shards.sources.find_inputs import assign_units
from latentcli.shards.storage.atomic_write import atomic_write
from latentcli.shards.storage.paths import path_of
from latentcli.shards.store.input_list import InputList, write_inputs

UNIT = 1000
"""Inputs to a unit of the list that the workers look rows up in."""


def run_roundtrip(job: RoundtripJob, reporter: Reporter = SILENT) -> dict[str, Any]:
    """The --json document of `roundtrip`. All models see the same pixels of every picture."""
    check(job)
    found = media_of(job, reporter)
    check_clip_options(job, found.media)
    check_packed_options(job, found, reporter)
    if found.media == "clips":
        refuse_for_clips(job, found)
    if job.single_file and not found.packed:
        check_count(len(found.inputs))
    reporter.status("Loading the models")
    compared_models = load_compared_models(job)
    cached = open_cached(job.cached, [compared.decoder for compared in compared_models])
    measures, sets = open_metrics(job, compared_models)
    preprocess = preprocess_spec(job, divisor(compared_models))
    compared_models = with_codes(job, compared_models, preprocess, found, reporter)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="latentcli-")))
        write_inputs(
            folder / "inputs.jsonl", assign_units(found.inputs, 1 if found.packed else UNIT)
        )
        inputs = InputList.open(folder / "inputs.jsonl")
        stop = stack.enter_context(stop_on_signals(advice(job)))
        rows = stack.enter_context(closing(RowSpool(folder / "rows.jsonl")))
        report = None
        if job.report is not None:
            groups = encoder_groups([compared.encoder for compared in compared_models])
            place = str(folder / "report") if job.single_file else job.report
            single = Path(job.report) if job.single_file else None
            report = ReportWriter(place, groups, job.difference_gain, single)
            stack.enter_context(closing(report))
        meter = meter_of(job, found, compared_models, reporter)
        comparison = Comparison(job, compared_models, measures, meter, cached, reporter.note)
        inputs_known = None if found.packed else len(found.inputs)
        failures = Failures(job.on_error, job.max_bad, inputs_known, "there are no figures")
        with stop.at_once():
            warm_up(comparison)
        run = Roundtrip(comparison, sets, rows, report, stop, failures)
        stream(run, found, inputs, preprocess)
        check_measured(run, found)
        return finished(run, document(run, found, preprocess))


def advice(job: RoundtripJob) -> str:
    """What a job that is stopped leaves behind, and what to do."""
    left = [name for name in (job.save, job.report) if name is not None]
    if not left:
        return "Nothing was kept."
    return (
        f"There are no figures; pictures so far are in {' and '.join(left)}. The same command"
        " replaces them."
    )


def check_measured(run: Roundtrip, found: FoundMedia) -> None:
    """LatentCliError where there is nothing to tell figures of."""
    if not run.rows.count and not run.failures.noted:
        if not run.filtered:
            raise LatentCliError("None of the inputs holds a picture.")
        reasons = "; ".join(run.filtered)
        raise LatentCliError(
            "None of the inputs was compared, because the filters leave out all of them:"
            f" {reasons}. Choose other limits."
        )
    if not run.rows.count:
        first = run.failures.noted[0]
        raise LatentCliError(
            f"No input could be used; the first of {len(found.inputs):,}, {first['key']}:"
            f" {first['error']}."
        )
    if not any(len(values) for values in run.model_figures[0].figures.values()):
        least = min(measure.least_side for measure in run.comparison.measures)
        names = ",".join(run.comparison.job.metrics)
        raise LatentCliError(
            f"None of the {run.rows.count:,} pictures is large enough for"
            f" --metrics {names}: both sides must be at least {least} pixels."
            " Choose a larger --size, or add psnr."
        )


def check(job: RoundtripJob) -> None:
    """UsageError for what is wrong with the job itself."""
    check_options(job)
    inference_config(job)
    check_models(job)
    check_output_paths(job)
    if job.csv is not None:
        try_file("--csv", job.csv)
    if job.save is not None:
        try_outside_stores("--save", job.save)
    if job.single_file:
        check_single_page(job)
    elif job.report is not None:
        check_report_folder(job.report)
    if not set(job.metrics) - {"rfid"}:
        raise UsageError("--metrics has no measure of single images; add psnr.")


def refuse_for_clips(job: RoundtripJob, found: FoundMedia) -> None:
    """UsageError where the job asks for what clips have not."""
    if found.packed:
        noun = READERS[found.kind].noun
        raise UsageError(f"roundtrip takes clips as files, not in {noun}s: unpack them first.")
    if job.cached is not None:
        raise UsageError("--cached is for pictures, and the sources are clips; leave it out.")
    if "rfid" in job.metrics:
        raise UsageError(
            "--metrics rfid compares sets of images; for clips see latentcli video-distance."
        )


def open_metrics(
    job: RoundtripJob, compared_models: list[ComparedModel]
) -> tuple[list[Measure], list[SetMeasure]]:
    """What is measured of each picture and of the whole set; weights are loaded here."""
    device = compared_models[0].decoder.device
    weights = {}
    for text in job.metric_weights:
        name, mark, path = text.partition("=")
        if not mark or name not in job.metrics:
            raise UsageError(
                f"--metric-weights is {text!r}; write NAME=PATH with a name of --metrics."
            )
        weights[name] = path
    sets = open_set_measures(job.metrics, device, weights, models=len(compared_models))
    return open_measures(job.metrics, device, weights), sets


def meter_of(
    job: RoundtripJob, found: FoundMedia, compared_models: list[ComparedModel], reporter: Reporter
) -> Meter:
    """The meter of this job's kind of input."""
    total, gpu = len(found.inputs), compared_models[0].encoder.accelerator.gpu
    if found.media == "clips":
        return Meter("roundtrip", total, reporter.progress, noun="frames", gpu=gpu)
    return Meter(
        "roundtrip",
        None if found.packed else total,
        reporter.progress,
        workers=pick_workers(job.workers, MANY if found.packed else total, note=reporter.note),
        threads={"read": 1} if found.packed else {},
        gpu=gpu,
    )


def stream(
    run: Roundtrip, found: FoundMedia, inputs: InputList, preprocess: PreprocessSpec
) -> None:
    """All inputs, whatever they are."""
    job, meter = run.comparison.job, run.comparison.meter
    sizes = size_filter(job)
    if found.media == "clips":
        recipe = ClipRecipe(job.max_pixels, preprocess, job.stride, job.frames, sizes)
        compare_clips(run, inputs, recipe)
        return
    policy = DecodePolicy(job.alpha, job.max_pixels, sizes)
    intake = Intake(inputs, Recipe(policy, preprocess))
    reader = READERS[found.kind](
        *(SUFFIXES["images"], meter, run.stop.check),
        image_field=job.image_field,
        image_root=absolute_root(job.image_root),
    )
    tasks = reader.tasks(intake, range(inputs.units))
    workers = pick_workers(job.workers, MANY if found.packed else len(found.inputs))
    compare_images(run, intake, tasks, workers, job.time_limit or math.inf)


def finished(run: Roundtrip, outcome: dict[str, Any]) -> dict[str, Any]:
    """The document, once the files that go with it are written.

    `problems` says which of them could not be: figures that took hours are returned in any case.
    """
    comparison = run.comparison
    # A problem so far is one of the pictures: their page would not be whole.
    if run.report is not None and not run.problems:
        try:
            outcome |= run.report.finish(run.rows.end, run.rows.rows, outcome)
        except StoreError as error:
            run.problems.append(str(error))
    if comparison.job.csv is not None:
        try:
            names = [compared.name for compared in comparison.compared_models]
            lines = csv_lines(run.rows.rows(), names, columns(run))
            atomic_write(path_of(comparison.job.csv), lines)
        except StoreError as error:
            outcome["csv"] = None
            run.problems.append(str(error))
    return outcome | {"problems": run.problems}


def columns(run: Roundtrip) -> list[str]:
    """The figures that a line of the CSV file has of each model."""
    alike = [
        name
        for name in SIMILARITIES
        if any(name in of_model.alike for of_model in run.model_figures)
    ]
    return [*(measure.name for measure in run.comparison.measures), *alike]
