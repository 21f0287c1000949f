"""Runs an encode job: images, clips or tars become a latent store or a tar stream."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from latentcli.core.errors import UsageError
from latentcli.core.options import check_options
from latentcli.jobs.cluster.environment import conclusion, rank_of
from latentcli.jobs.cluster.tcp_team import join_team
from latentcli.jobs.cluster.team import Team
from latentcli.jobs.config import EncodeJob, check_pipe, is_piped
from latentcli.jobs.encode.captions import texts_of
from latentcli.jobs.encode.dry_run import plan_document
from latentcli.jobs.encode.from_stdin import encode_stdin
from latentcli.jobs.encode.plan import (
    plan_encode,
    store_of,
    stored_spec,
    with_compile,
    with_model_defaults,
    with_stored,
)
from latentcli.jobs.encode.ray_driver import run_ray
from latentcli.jobs.encode.share import claimed, encode_in_team, follow, lead
from latentcli.jobs.encode.to_stdout import encode_to_stdout
from latentcli.jobs.inference.accelerator import own_device
from latentcli.jobs.inference.capabilities import refuse_decoder_preset
from latentcli.jobs.inference.engine import engine_of
from latentcli.jobs.loader.find_media import check_clip_options, media_of
from latentcli.jobs.loader.packed_options import check_packed_options
from latentcli.jobs.runtime.reporter import SILENT, Reporter
from latentcli.jobs.runtime.signals import StopRequest, stop_on_signals
from latentcli.jobs.runtime.stdio import STDIN, STDOUT, standard_ends


def run_encode(job: EncodeJob, reporter: Reporter = SILENT) -> dict[str, Any]:
    """Encodes what is not yet in the store; the result is the --json document of `encode`.

    Under torchrun or srun this process does its share; only the first one has a document, that
    of the others is empty. LatentCliError kinds: UsageError (options), WeightsError, StoreError
    (folder, disk, another spec), SelfCheckError, TooManyFailures, Interrupted. What was committed
    before an error stays.
    """
    check_options(job)
    refuse_decoder_preset(job.model)
    if is_piped(job):
        return run_pipe(job, reporter)
    if job.engine == "ray" and not job.dry_run:
        return run_ray(job, reporter)
    rank = rank_of(os.environ)
    if job.dry_run and rank.world > 1:
        raise UsageError(alone("A plan is made by one process"))
    there = stored_spec(store_of(job))
    job = with_stored(job, there)
    job = replace(job, device=own_device(job.device, rank.local, rank.world))
    with (
        stop_on_signals("Run the same command again to finish the rest.") as stop,
        join_team(rank, os.environ, stop.check, reporter.note) as team,
    ):
        if rank.leader:
            return run_alone_or_first(job, there, team, stop, reporter)
        with stop.at_once():
            engine = engine_of(job)
        other = (
            f"Process {rank.rank} was started with other options or weights than process 0, or"
            " --dtype auto means another dtype where it runs: start all of them with the same"
            " command, and with --dtype where the machines differ."
        )
        follow(with_model_defaults(job, engine), engine, team, stop, other, claimed)
    return {}


def alone(what: str) -> str:
    """The message where several processes were started for what only one can do."""
    return f"{what}: leave out torchrun or srun. {conclusion(os.environ)}".rstrip()


def run_alone_or_first(
    job: EncodeJob, there: Mapping[str, Any], team: Team, stop: StopRequest, reporter: Reporter
) -> dict[str, Any]:
    """The job of the only process, or of the first of several; `there` is as of `plan_encode`."""
    began = time.perf_counter()
    with stop.at_once():
        found = media_of(job, reporter, job.allow_pipe, texts_of(job))
        check_clip_options(job, found.media)
        check_packed_options(job, found, reporter)
        reporter.status("Loading the model")
        engine = engine_of(job)
        job = with_compile(with_model_defaults(job, engine), engine, found)
        plan = plan_encode(job, engine, found.media, found.kind, there=there)
        if job.dry_run:
            reporter.status("Comparing the inputs with the store, and encoding a few")
            return plan_document(job, engine, plan, found, stop)
    return lead(job, engine, plan, found, team, stop, reporter, encode_in_team, began)


def run_pipe(job: EncodeJob, reporter: Reporter) -> dict[str, Any]:
    """The job where standard input or output is one end of it; UsageError where that cannot be."""
    check_pipe(job)
    if rank_of(os.environ).world > 1:
        raise UsageError(alone("A pipe is read and written by one process"))
    advice = "Run the pipeline again from its beginning."
    if job.sources == (STDIN,) and job.output != STDOUT:
        advice = "Run the same pipeline again; what is committed is skipped."
    reads, writes = STDIN in job.sources, job.output == STDOUT
    with stop_on_signals(advice) as stop, standard_ends(reads, writes, stop.check) as stdout:
        with stop.at_once():
            reporter.status("Loading the model")
            there = stored_spec(store_of(job))
            job = with_stored(job, there)
            engine = engine_of(job)
        job = with_model_defaults(job, engine)
        if stdout is not None:
            return encode_to_stdout(job, engine, stdout, stop, reporter)
        return encode_stdin(job, engine, there, stop, reporter)
