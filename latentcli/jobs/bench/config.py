"""Holds the job of bench as a frozen dataclass of options; importing this loads no torch."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from latentcli.core.errors import UsageError
from latentcli.core.options import like, option
from latentcli.jobs.config import BUNDLED_MODEL
from latentcli.jobs.runtime.given_names import check_model
from latentcli.jobs.settings.follow import FollowSettings
from latentcli.jobs.settings.images import SOURCES, ImageIntake
from latentcli.jobs.settings.model import (
    MODEL,
    CompileSettings,
    DecodeSettings,
    ModelSettings,
    model_option,
)
from latentcli.models.presets import preset_names

NOT_STAGES = {
    "compiles": "--compile on",
    "chart": "--chart",
    "report": "--report",
    "preset_table": "--preset-table",
    "seconds": "--seconds",
    "threads": "--threads",
    "roofline": "--roofline",
}
"""What the --stages form has no use for, and the options that ask for it."""

ONLY_STAGES = {"size": "--resolution", "batch_size": "--batch"}
"""Fields that only the --stages form has a use for, and the options that are meant."""


@dataclass(frozen=True, kw_only=True)
class BenchJob(FollowSettings, ModelSettings):
    """Time encode and decode of models, or the stages of a whole encode job."""

    sources: tuple[str, ...] = like(
        ImageIntake,
        "sources",
        help=f"With --stages: {SOURCES.replace('image or video files', 'image files')}",
        needed="",
        exists=None,
    )
    op: str | None = option(
        None,
        "What is timed: encode, decode or both (default).",
        section="bench",
        daily=True,
        choices=("encode", "decode", "both"),
    )
    resolution: tuple[str, ...] | None = option(
        None,
        "Image sizes, with commas or repeated: 256,512x384. Default: 256.",
        section="bench",
        daily=True,
        metavar="N|WxH",
        commas=True,
    )
    batch: tuple[int, ...] | None = option(
        None,
        "Batch sizes, with commas or repeated. Default: 1,8.",
        section="bench",
        daily=True,
        least=1,
        commas=True,
    )
    preset_table: str | None = option(
        None,
        "Time exactly the rows of a published table: encode or decode. --batch N replaces its"
        " batch sizes on a smaller machine. Default: none.",
        section="bench",
        choices=("encode", "decode"),
    )
    warmup: int = option(
        2,
        "Untimed calls before the timed ones, at least one. Default: 2.",
        section="bench",
        least=0,
    )
    repeats: int = option(
        10,
        "Most timed calls of a case; their median counts. Default: 10.",
        section="bench",
        daily=True,
        least=1,
    )
    seconds: float | None = option(
        None,
        "Stop repeating a case after this time, but not before 3 repeats. Default: no limit.",
        section="bench",
        least=0,
        metavar="S",
    )
    threads: int | None = option(
        None,
        "CPU threads of the networks. One thread gives steadier figures on a shared machine."
        " Default: torch's own choice.",
        section="bench",
        least=1,
    )
    random_weights: bool = option(
        False,
        "Time the network with random weights, without loading its own. Default: off.",
        section="bench",
        daily=True,
    )
    compile: str = like(
        CompileSettings,
        "compile",
        help="on: time the networks compiled by torch.compile, which needs a compiler. off, and"
        " auto (default): time the networks as they are.",
    )
    roofline: bool = option(
        False,
        "Also measure how fast the machine multiplies matrices and copies memory, and show what"
        " share of that each model reaches. Default: off.",
        section="bench",
    )
    chart: str | None = option(
        None,
        "Draw the rates as a bar chart, FILE.png or FILE.svg. Needs latentcli[charts]. Default:"
        " none.",
        section="bench",
        daily=True,
        metavar="FILE",
    )
    report: str | None = option(
        None,
        "Write a page with the tables as bars into this folder, or to this FILE.html. Default:"
        " none.",
        section="write",
        metavar="DIR",
    )
    stages: bool = option(
        False,
        "Time each stage of an encode job of SRC instead. Default: off.",
        section="bench",
        daily=True,
    )
    workers: int | None = like(ImageIntake, "workers")
    size: str | None = like(ImageIntake, "size")
    batch_size: int | None = like(ImageIntake, "batch_size")
    baseline: str | None = option(
        None,
        "Model that speedup and memory reduction are measured against. Default: none.",
        section="model",
        metavar="MODEL",
        exists=check_model,
        offers=preset_names,
    )
    models: tuple[str, ...] = model_option(
        (BUNDLED_MODEL,), f"{MODEL} Repeat to compare several. Default: {BUNDLED_MODEL}."
    )
    steps: int = like(DecodeSettings, "steps")

    @property
    def compiles(self) -> bool:
        """Whether it is compiled networks that are timed."""
        return self.compile == "on"


def refuse_other_form(job: BenchJob) -> None:
    """UsageError for what belongs to the form with --stages, or without, and is not asked for."""
    if job.sources and not job.stages:
        again = shlex.join(["latentcli", "bench", "--stages", *job.sources])
        raise UsageError(f"bench times random pictures. To time a job of files: {again}")
    for name, other in NOT_STAGES.items() if job.stages else ():
        if getattr(job, name):
            raise UsageError(f"bench --stages takes no {other}.")
    for name, meant in () if job.stages else ONLY_STAGES.items():
        if getattr(job, name) is not None:
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(f"{flag} belongs to --stages; without it, say {meant}.")
