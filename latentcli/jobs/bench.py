"""Models in, milliseconds and megabytes per batch out, measured in one process and one run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from latentcli.core.errors import UsageError
from latentcli.jobs.bench_cases import Case, cases_of, preset_document
from latentcli.jobs.bench_check import check_outputs
from latentcli.jobs.bench_machine import machine, state
from latentcli.jobs.bench_memory import MEMORY
from latentcli.jobs.bench_models import Contender, bench_engine, contender, why_not
from latentcli.jobs.bench_stages import bench_stages
from latentcli.jobs.bench_timing import measure_case, untimed_calls
from latentcli.jobs.config import BenchJob, check_choices
from latentcli.jobs.meter import Meter
from latentcli.jobs.talk import SILENT, Talk
from latentcli.reports.bench_chart import check_chart, draw_chart
from latentcli.shards.write import atomic_write

NOT_STAGES = {
    "compile": "--compile",
    "chart": "--chart",
    "preset_table": "--preset-table",
    "seconds": "--seconds",
}
"""Fields that the --stages form has no use for, and their options."""


def run_bench(job: BenchJob, talk: Talk = SILENT) -> dict[str, Any]:
    """The --json document of `bench`, or of its --stages form.

    Every model's output is checked before any is timed. UsageError for what cannot be asked,
    LatentCliError for an output that is wrong, a failed compile or memory that is short.
    """
    check_choices(job)
    if job.stages:
        refuse_beside_stages(job)
        return bench_stages(job, talk)
    if job.sources:
        raise UsageError("bench times random pictures; files are read with --stages only.")
    cases = cases_of(job)
    if job.chart is not None:
        check_chart(job.chart)
    names = list(dict.fromkeys([*job.models, *([job.baseline] if job.baseline else [])]))
    models, checks = load_all(job, names, talk)
    document = measure(job, models, cases, talk)
    document["checks"] = checks
    if job.chart is not None:
        path = Path(job.chart)
        atomic_write(path, [draw_chart(document, path.suffix.lower().removeprefix("."))])
        document["chart"] = str(path)
    return document


def refuse_beside_stages(job: BenchJob) -> None:
    """UsageError for an option that --stages does not know."""
    for name, option in NOT_STAGES.items():
        if getattr(job, name):
            raise UsageError(f"bench --stages takes no {option}.")


def load_all(
    job: BenchJob, names: list[str], talk: Talk
) -> tuple[list[Contender], list[dict[str, Any]]]:
    """(models as they are timed, the checks' rows); LatentCliError where a check fails."""
    models, checks = [], []
    for name in names:
        engine = bench_engine(job, name)
        talk.note(f"Checking {name} against its own eager float32 output.")
        reference = engine if engine.dtype == "fp32" else bench_engine(job, name, "fp32")
        model = contender(name, engine, job.compile)
        checks += check_outputs(engine, reference, model)
        models.append(model)
    return models, checks


def measure(
    job: BenchJob, models: list[Contender], cases: list[Case], talk: Talk
) -> dict[str, Any]:
    """The document without its checks."""
    first = models[0].engine
    reasons = {(m.name, c.op): why_not(m.engine, c) for c in cases for m in models}
    left_out = [
        {"model": name, "op": op, "reason": reason}
        for (name, op), reason in reasons.items()
        if reason
    ]
    if len(left_out) == len(reasons):
        ops = " or ".join(dict.fromkeys(case.op for case in cases))
        raise UsageError(f"None of the models can {ops}: {', '.join(m.name for m in models)}.")
    before = state(first)
    meter = Meter("bench", len(cases), talk.progress, noun="cases")
    meter.begin()
    rows: list[dict[str, Any]] = []
    for case in cases:
        able = [m for m in models if not reasons[m.name, case.op]]
        rows += measure_case(case, able, job) if able else []
        meter.advance(1)
    after = state(first)
    return {
        **machine(first),
        "dtype": first.dtype,
        "compiled": job.compile,
        "random_weights": job.random_weights,
        "models": [
            {"model": m.name, "weights": m.engine.info.origin, "parameters": parameters(m)}
            for m in models
        ],
        "baseline": job.baseline,
        "preset_table": preset_document(job),
        "steps": job.steps,
        "warmup": untimed_calls(job),
        "repeats": job.repeats,
        "seconds": job.seconds,
        "load": {"before": before["load"], "after": after["load"]},
        "clocks": {"before": before["clocks"], "after": after["clocks"]},
        "memory": MEMORY[first.device.type],
        "left_out": left_out,
        "rows": rows,
    }


def parameters(model: Contender) -> int:
    """Trainable values of a model."""
    return model.engine.model.parameter_count()
