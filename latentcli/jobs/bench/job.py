"""Runs the bench job: models are timed side by side in one process and one run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from latentcli.core.errors import LatentCliError, UsageError
from latentcli.core.options import check_options
from latentcli.jobs.bench.cases import Case, cases_of, preset_document
from latentcli.jobs.bench.ceilings import ceilings_document, ceilings_of
from latentcli.jobs.bench.check_outputs import check_outputs
from latentcli.jobs.bench.config import BenchJob, refuse_other_form
from latentcli.jobs.bench.machine import machine, state
from latentcli.jobs.bench.models import TimedModel, bench_engine, timed_model, why_not
from latentcli.jobs.bench.stages import bench_stages
from latentcli.jobs.bench.timing import measure_case, untimed_calls
from latentcli.jobs.config import with_weights
from latentcli.jobs.inference.engine import Engine
from latentcli.jobs.runtime.meter import Meter
from latentcli.jobs.runtime.report_folder import (
    PAGE,
    PAGE_SUFFIX,
    check_page_file,
    check_report_folder,
    report_folder,
)
from latentcli.jobs.runtime.reporter import SILENT, Reporter
from latentcli.reports.bench_chart import check_chart, draw_chart
from latentcli.reports.bench_page import bench_page
from latentcli.reports.page import write_page
from latentcli.shards.sources.own_output import mark
from latentcli.shards.storage.atomic_write import atomic_write, writing


def run_bench(job: BenchJob, reporter: Reporter = SILENT) -> dict[str, Any]:
    """The --json document of `bench`, or of its --stages form.

    Every model's output is checked before any is timed. UsageError for what cannot be asked,
    LatentCliError for an output that is wrong, a failed compile or memory that is short. A chart
    or a page that cannot be written costs no figures: the document then has `chart_error` or
    `report_error`.
    """
    check_options(job)
    refuse_other_form(job)
    if job.stages:
        return bench_stages(job, reporter)
    cases = cases_of(job)
    if job.chart is not None:
        check_chart(job.chart)
    if job.report is not None:
        check_page(job.report)
    texts = model_texts(job)
    reporter.status("Loading the models")
    engines = {name: bench_engine(job, text) for name, text in texts.items()}
    reasons = left_out(engines, cases)
    models, checks = check_all(job, texts, engines, cases, reporter)
    if job.baseline is not None:
        job = replace(job, baseline=with_weights(job.baseline)[0])
    with cpu_threads(job.threads):
        document = measure(job, models, cases, reasons, reporter)
    document["checks"] = checks
    drawn = {} if job.chart is None else chart(job.chart, document)
    return document | drawn | ({} if job.report is None else report(job.report, document))


@contextmanager
def cpu_threads(number: int | None) -> Iterator[None]:
    """So many threads of torch within the block; None leaves them as they are."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def chart(name: str, document: Mapping[str, Any]) -> dict[str, str]:
    """Draws the document's chart; `chart` is its file, or `chart_error` why there is none."""
    path = Path(name)
    kind = path.suffix.lower().removeprefix(".")
    try:
        if kind == "png":  # drawings are no inputs
            mark(path.parent)
        atomic_write(path, [draw_chart(document, kind)])
    except Exception as error:  # whatever matplotlib or the disk says, the figures are not lost
        reason = error.__cause__ or error
        why = getattr(reason, "strerror", None) or str(reason).rstrip(".") or type(reason).__name__
        return {"chart_error": f"The chart {path} could not be made: {why}."}
    return {"chart": str(path)}


def check_page(name: str) -> None:
    """UsageError where no page can be written there; it is for before the measuring."""
    check_page_file(name) if is_page_file(name) else check_report_folder(name)


def is_page_file(name: str) -> bool:
    """Whether a report is a page alone, and no folder."""
    return name.lower().endswith(PAGE_SUFFIX)


def report(name: str, document: Mapping[str, Any]) -> dict[str, Any]:
    """Writes the document's page; `page` is its file, or `report_error` why there is none."""
    try:
        path = Path(name) if is_page_file(name) else report_folder(name) / PAGE
        with writing(path):
            write_page(path, bench_page(document))
    except LatentCliError as error:
        return {"report_error": str(error)}
    return {"page": str(path)}


def model_texts(job: BenchJob) -> dict[str, str]:
    """Each model's name, and how it was given: NAME or NAME=PATH, with the path of its weights.

    UsageError for two of one name, and for --weights or --revision, which say nothing of several.
    """
    texts = dict.fromkeys([*job.models, *([job.baseline] if job.baseline else [])])
    named = {with_weights(text)[0]: text for text in texts}
    if len(named) < len(texts):
        raise UsageError(
            "Two --model or --baseline have the same name; their figures could not be told apart."
        )
    for option, value in (("--weights", job.weights), ("--revision", job.revision)):
        if value is not None and len(named) > 1:
            raise UsageError(
                f"{option} belongs to one model. With several, write --model NAME=PATH for each"
                " that needs weights of its own."
            )
    return named


def left_out(engines: Mapping[str, Engine], cases: list[Case]) -> dict[tuple[str, str], str | None]:
    """By model and op, why it has none; UsageError where no model has any, or a size is wrong."""
    reasons = {(name, c.op): why_not(engine, c) for c in cases for name, engine in engines.items()}
    if all(reasons.values()):
        ops = " or ".join(dict.fromkeys(case.op for case in cases))
        raise UsageError(f"None of the models can {ops}: {', '.join(engines)}.")
    return reasons


def check_all(
    job: BenchJob,
    texts: Mapping[str, str],
    engines: Mapping[str, Engine],
    cases: Sequence[Case],
    reporter: Reporter,
) -> tuple[list[TimedModel], list[dict[str, Any]]]:
    """(models as they are timed, the checks' rows); LatentCliError where a check fails."""
    models, checks = [], []
    ops = dict.fromkeys(case.op for case in cases)
    for name, engine in engines.items():
        reporter.note(f"Checking {name} against its own eager float32 output.")
        reference = bench_engine(job, texts[name], "fp32", plain=True)
        model = timed_model(name, engine, job.compiles)
        checks += check_outputs(engine, reference, model, ops)
        models.append(model)
    return models, checks


def measure(
    job: BenchJob,
    models: list[TimedModel],
    cases: list[Case],
    reasons: Mapping[tuple[str, str], str | None],
    reporter: Reporter,
) -> dict[str, Any]:
    """The document without its checks."""
    first = models[0].engine
    before = state(first)
    meter = Meter("bench", len(cases), reporter.progress, noun="cases")
    meter.begin()
    rows: list[dict[str, Any]] = []
    short: list[dict[str, str]] = []
    ceilings = ceilings_of(first.accelerator, first.dtype) if job.roofline else []
    for case in cases:
        able = [m for m in models if not reasons[m.name, case.op]]
        done, lacking = measure_case(case, able, job, ceilings)
        rows += done
        short += lacking
        meter.advance(1)
    if not rows:
        raise LatentCliError(f"{'; '.join(item['reason'] for item in short)}.")
    after = state(first)
    return {
        **machine(first),
        "dtype": first.dtype,
        "compiled": job.compiles,
        "random_weights": job.random_weights,
        "models": [
            {
                "model": m.name,
                "weights": m.engine.info.origin,
                "parameters": m.engine.model.parameter_count(),
            }
            for m in models
        ],
        "baseline": job.baseline,
        "preset_table": preset_document(job),
        "ceilings": ceilings_document(ceilings) if ceilings else None,
        "steps": job.steps,
        "warmup": untimed_calls(job),
        "repeats": job.repeats,
        "seconds": job.seconds,
        "load": {"before": before["load"], "after": after["load"]},
        "clocks": {"before": before["clocks"], "after": after["clocks"]},
        "memory": first.accelerator.memory_counted,
        "left_out": [
            {"model": name, "op": op, "reason": reason}
            for (name, op), reason in reasons.items()
            if reason
        ]
        + short,
        "rows": rows,
    }
