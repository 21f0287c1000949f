"""Defines `latentcli encode`, which makes a latent store or tar stream of images, clips or tars."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from latentcli.cli import words
from latentcli.cli.caption_words import caption_lines
from latentcli.cli.command import command
from latentcli.cli.devices import run_on_devices
from latentcli.cli.output import Output, say_bundled
from latentcli.cli.plan_tables import plan_tables
from latentcli.core.byte_size import byte_words
from latentcli.core.errors import NoPlaceForStore, StoreError, TooManyFailures
from latentcli.jobs.cluster.environment import rank_of
from latentcli.jobs.config import EncodeJob, check_pipe, is_piped
from latentcli.jobs.runtime.failures import check_failed
from latentcli.jobs.runtime.given_names import check_new_store, check_one_way, check_sides
from latentcli.jobs.runtime.process import loading
from latentcli.jobs.runtime.stdio import check_stdin, reserved_stdout

FORESEEN = {error.exit_code: error for error in (StoreError, NoPlaceForStore, TooManyFailures)}
"""What a plan ends with, as the job would, by exit code."""


@command(
    EncodeJob,
    examples=(
        "encode photos --model full_capacitor --size 512 -o photos.latents",
        "encode 'shards/{000..099}.tar' -m flux2 --area 1024 --devices all -o s3://bucket/latents",
        "encode @list.txt --size 256 --dry-run",
    ),
)
def encode(out: Output, job: EncodeJob, given: frozenset[str]) -> None:
    """Encode images, clips or tar shards into a latent store.

    The same command, run again, resumes: it encodes only what is missing, new or changed.
    """
    run(out, job, given)


def run(out: Output, job: EncodeJob, given: frozenset[str]) -> None:
    """Runs the job, here or in processes of its own, and shows what came of it."""
    out.stdout_is_taken = job.output == "-"
    if is_piped(job):
        check_pipe(job)
    check_new_store(job.output, job.sources)
    check_one_way(job.size, job.area)
    check_sides(job.size, job.model)
    if "-" in job.sources:
        check_stdin()
    if job.engine == "local" and not job.dry_run:
        run_on_devices(out, job.devices, job.device)
    say_bundled(out, given)
    leads = rank_of(os.environ).leader
    followed = None if job.dry_run else job
    with (
        reserved_stdout(out.stdout_is_taken),
        out.reporter(followed, "encode", leads=leads) as reporter,
    ):
        with loading():
            from latentcli.jobs.encode.job import run_encode
            from latentcli.jobs.loader.fork_server import begin_here

        if job.engine == "local" and job.workers != 0 and not job.dry_run:
            begin_here()
        document = run_encode(job, reporter)
    if not document:  # another process of this job has it
        return
    if job.dry_run:
        out.show(document, data=plan_tables)
        if document["exit_code"]:
            raise FORESEEN[document["exit_code"]](document["error"])
        return
    out.show(document, summary=summary)
    check_failed(document["failed"], document["inputs"], job.max_bad)


def summary(document: Mapping[str, Any]) -> Iterable[str]:
    """What was done, where it is, what failed and what to do next."""
    yield words.outcome("encoded", document)
    yield place(document)
    if document["encoded"]:
        yield from words.slowest(document)
    yield from caption_lines(document)
    yield from words.failures(document)
    yield from words.filtered(document)
    yield from words.fields(document)
    yield from words.left_out(document)
    store = document["store"]
    if store != "-" and document["encoded"] + document["skipped"]:
        yield "Next:"
        yield f"  {words.command('decode', store)}"
        yield f"  {words.command('inspect', store)}"


def place(document: Mapping[str, Any]) -> str:
    """Where the latents are, and how large they are."""
    if document["store"] == "-":
        return f"Standard output: a tar stream of {byte_words(document['bytes'])}."
    return (
        f"Store: {document['store']} ({words.count(document['shards'], 'shard')},"
        f" {byte_words(document['bytes'])}, {document['geometry']}, {document['latent_space']})"
    )
