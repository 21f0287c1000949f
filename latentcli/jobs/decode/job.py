"""Runs the decode job: a store or a file of latents becomes pictures or clips."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

from latentcli.core.errors import UsageError
from latentcli.core.options import check_options
from latentcli.images.clips import load_av
from latentcli.images.codec import SUFFIX_OF
from latentcli.jobs.cluster.environment import rank_of
from latentcli.jobs.cluster.tcp_team import join_team
from latentcli.jobs.cluster.team import Team
from latentcli.jobs.config import ONE_PROCESS, DecodeJob
from latentcli.jobs.decode.clips import decode_clips
from latentcli.jobs.decode.compiled import compiled_engine, warm_up
from latentcli.jobs.decode.from_stdin import open_piped
from latentcli.jobs.decode.latents import (
    LatentSource,
    check_preset_space,
    check_space,
)
from latentcli.jobs.decode.open_latents import open_latents
from latentcli.jobs.decode.output import (
    DecodeRun,
    make_folder,
    writer_threads,
)
from latentcli.jobs.decode.share import agreed, together
from latentcli.jobs.decode.stream import decode_all
from latentcli.jobs.decode.to_stdout import decode_to_stdout, refuse_skipping
from latentcli.jobs.inference.accelerator import own_device
from latentcli.jobs.inference.capabilities import check_state, refuse_encoder
from latentcli.jobs.inference.engine import Engine, inference_config, load_engine
from latentcli.jobs.inference.split_on_oom import SplitOnOom
from latentcli.jobs.runtime.bottleneck import ThreadGroup
from latentcli.jobs.runtime.failures import Failures
from latentcli.jobs.runtime.meter import Meter
from latentcli.jobs.runtime.model_cards import decoders_of
from latentcli.jobs.runtime.places import try_outside_stores
from latentcli.jobs.runtime.reporter import SILENT, Reporter
from latentcli.jobs.runtime.signals import StopRequest, stop_on_signals
from latentcli.jobs.runtime.stdio import STDIN, STDOUT, standard_ends
from latentcli.shards.storage.paths import path_of
from latentcli.shards.store.presence import AGAIN


def run_decode(job: DecodeJob, reporter: Reporter = SILENT) -> dict[str, Any]:
    """Decodes every latent; the result is the --json document of `decode`.

    A latent or clip that cannot be decoded counts as failed and is named in `failures`; the rest
    goes on. LatentCliError at the first one with --on-error stop, TooManyFailures where --max-bad
    is passed. Under torchrun or srun this process does its share; only the first one has a
    document, that of the others is empty.
    """
    check_options(job)
    began = time.perf_counter()
    rank = rank_of(os.environ)
    reads, writes = job.store == STDIN, job.output == STDOUT
    if (reads or writes) and rank.world > 1:
        raise UsageError(f"{ONE_PROCESS}: leave out torchrun or srun.")
    if writes:
        refuse_skipping(job.skip_existing)
    with (
        stop_on_signals(advice(job)) as stop,
        standard_ends(reads, writes, stop.check) as stdout,
        join_team(rank, os.environ, stop.check) as team,
        ExitStack() as stack,
    ):
        inference_config(job)
        if not writes:
            try_outside_stores("-o", job.output or str(folder_of(job)))
        if reads:
            check = stop.check if stdout is None else stdout.check
            source = stack.enter_context(open_piped(job.latents, check))
        with stop.at_once():
            reporter.status("Opening the latents")
            if not reads:
                # The units come from the first process: the others need not read all records.
                source = open_latents(path_of(job.store), job.latents, closely=rank.leader)
            if source.gaps and rank.leader:
                reporter.note(f"{source.path} is not complete: {source.gaps}. {AGAIN}")
            run = prepared(job, source, team, stop, reporter if rank.leader else SILENT)
            # Not before: where the first process fails until here, it tells for all of them.
            run = replace(run, source=agreed(job, source, team, stop))
        warm_up(run)
        if stdout is not None:
            decode_to_stdout(run, stdout)
        else:
            make_folder(run.output)
            (decode_all if source.clips is None else decode_clips)(run)
        return together(run, document(run, time.perf_counter() - began))


def advice(job: DecodeJob) -> str:
    """How to go on after an interruption."""
    if STDIN in (job.store, job.output):
        return "Run the pipeline again from its beginning."
    return "Add --skip-existing to resume from here."


def folder_of(job: DecodeJob) -> Path:
    """Where the files go, given or not."""
    name = "stdin" if job.store == STDIN else PurePath(job.store.rstrip("/")).stem
    folder = path_of(job.output or f"{name or 'latents'}.images")
    assert isinstance(folder, Path)  # try_outside_stores refuses remote ones
    return folder


def prepared(
    job: DecodeJob, source: LatentSource, team: Team, stop: StopRequest, reporter: Reporter
) -> DecodeRun:
    """The model loaded and checked against the latents; UsageError where they do not fit."""
    format = file_format(job, source)
    if format == "mp4":
        load_av("write")
    model = model_for(job, source)
    check_preset_space(source, model, force=job.force)
    reporter.status("Loading the model")
    engine = load_engine(
        model,
        weights=job.weights,
        revision=job.revision,
        device=own_device(job.device, team.rank.local, team.rank.world),
        dtype=job.dtype,
        max_memory=job.most_bytes,
        compile=job.compile,
    )
    refuse_encoder(engine)
    check_state(job.latents, engine)
    check_space(source, engine, force=job.force)
    engine = compiled_engine(job, source, engine, team, reporter)
    reporter.about(str(source.path), engine.info.preset_name or engine.info.name)
    clips = source.clips is not None
    meter = Meter(
        *("decode", source.frames if clips else source.count, reporter.progress),
        noun="frames" if clips else "images",
        gpu=engine.accelerator.gpu,
        options=faster_options(job, engine, format),
        groups=threads_of_decode(job, source, format, team.rank.sharing, reporter),
        ranks=team.rank.world,
        shared=team.progress if team.rank.world > 1 else None,
    )
    return DecodeRun(
        *(job, source, engine, folder_of(job), meter, stop, format),
        *(SplitOnOom(reporter.note, engine.rooms.get("decode")), failures_of(job, source), team),
    )


def faster_options(job: DecodeJob, engine: Engine, format: str) -> dict[str, str]:
    """Stage to an option that would make it faster, of those that the job has not taken."""
    options = {}
    if engine.model.is_diffusion and job.steps > 1:
        options["decode"] = "fewer --steps"
    if format in ("png", "webp"):
        options["encode_image"] = "--format jpeg"
    return options


def failures_of(job: DecodeJob, source: LatentSource) -> Failures:
    """What counts the failures, and says what is left where they end the job."""
    if job.output == STDOUT:
        return Failures(
            job.on_error, job.max_bad, source.count, "the tar stream ends without its end mark"
        )
    return Failures(job.on_error, job.max_bad, source.count, "files so far stay", "--skip-existing")


def threads_of_decode(
    job: DecodeJob, source: LatentSource, format: str, sharing: int, reporter: Reporter
) -> tuple[ThreadGroup, ...]:
    """Which threads do which stages: one of them writes a video, frame by frame."""
    one = source.clips is not None and format == "mp4"
    writers = 1 if one else writer_threads(job, sharing, reporter.note)
    return (ThreadGroup(("read", "decode")), ThreadGroup(("encode_image", "write"), writers))


def file_format(job: DecodeJob, source: LatentSource) -> str:
    """The format of the files; UsageError where pictures are to become a video."""
    if job.format == "mp4" and source.clips is None:
        raise UsageError(
            f"--format mp4 is for clips, and {source.path} holds pictures; allowed are"
            f" {', '.join(SUFFIX_OF)}."
        )
    return job.format or ("png" if source.clips is None else "mp4")


def model_for(job: DecodeJob, source: LatentSource) -> str:
    """The model that is asked for, or the one that the latents name."""
    model = job.model or source.model
    if model is None:
        what = "The stream" if job.store == STDIN else source.path
        names = decoders_of(source.space)
        of_space = f" Latents of {source.space} are decoded by {', '.join(names)}." if names else ""
        raise UsageError(
            f"{what} does not say which model made it; name one with --model.{of_space}"
        )
    return model


def document(run: DecodeRun, seconds: float) -> dict[str, Any]:
    """The --json document."""
    meter, clips, failures = run.meter, run.source.clips is not None, run.failures.noted
    pictures = meter.done - len(run.skipped) - len(failures)
    return {
        "store": str(run.source.path),
        "output": str(run.output),
        "model": run.engine.info.preset_name or run.engine.info.name,
        "decoded": len(run.lengths) if clips else pictures,
        "media": "clips" if clips else "images",
        "frames": sum(run.lengths) if clips else None,
        "skipped": len(run.skipped),
        "failed": len(failures),
        "failures": failures,
        "reasons": run.failures.reasons.counts(),
        "reason_examples": run.failures.reasons.examples(),
        "missing": run.source.missing,
        "incomplete": run.source.gaps or None,
        "seconds": round(seconds, 3),
        **meter.paces(),
        "device": run.engine.device_name,
        "dtype": run.engine.dtype,
        "compiled": run.engine.compiled is not None,
        "steps": run.job.steps,
        "sampler": run.job.sampler,
        "seed": run.job.seed,
    }
