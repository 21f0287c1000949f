"""The encode job: images in, a latent store out, resumable at every instant."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from latentcli.core.errors import SampleError
from latentcli.core.types import InputRow
from latentcli.jobs.clip_encode import encode_clips
from latentcli.jobs.clips import ClipRecipe, open_frames
from latentcli.jobs.config import EncodeJob, allowed_failures, check_choices
from latentcli.jobs.encode_inputs import Work, plan_work
from latentcli.jobs.encode_plan import EncodePlan, plan_encode, refuse_decoder_preset, settled
from latentcli.jobs.encode_preview import preview
from latentcli.jobs.encode_stream import EncodeRun, encode_units
from latentcli.jobs.engine import Engine, load_engine
from latentcli.jobs.loader import Recipe, pick_workers, prepare
from latentcli.jobs.media import check_clip_options, find_media
from latentcli.jobs.meter import IMAGE_STAGES, Meter
from latentcli.jobs.self_check import self_check
from latentcli.jobs.signals import StopRequest, stop_on_signals
from latentcli.jobs.talk import SILENT, Talk
from latentcli.latents.stats import ChannelSums
from latentcli.shards.layout import FAILURES
from latentcli.shards.lock import StoreLock
from latentcli.shards.manifest import Manifest, read_manifest, write_manifest
from latentcli.shards.plan import FoundInput
from latentcli.shards.store import finish, open_for_writing

CHECKED_INPUTS = 4
"""Pictures of the self-check."""


def run_encode(job: EncodeJob, talk: Talk = SILENT) -> dict[str, Any]:
    """Encodes what is not yet in the store; the result is the --json document of `encode`.

    LatentCliError kinds: UsageError (options), WeightsError, StoreError (folder, disk, another
    spec), SelfCheckError, Interrupted. What was committed before an error stays.
    """
    check_choices(job)
    allowed_failures(job.max_bad, 0)
    began = time.perf_counter()
    refuse_decoder_preset(job.model)
    with stop_on_signals("Run the same command again to finish the rest.") as stop:
        found = find_media(job.sources, job.media, talk)
        check_clip_options(job, found.media)
        stop.check()
        engine = load_engine(
            job.model,
            weights=job.weights,
            revision=job.revision,
            device=job.device,
            dtype=job.dtype,
        )
        stop.check()
        job = settled(job, engine)
        plan = plan_encode(job, engine, found.media)
        if job.dry_run:
            return preview(plan, found.inputs) | {"left_out": found.left_out}
        with StoreLock(plan.store) as lock:
            if not lock.held:
                talk.note(f"{plan.store} cannot be locked: see that no other job writes to it.")
            told = encode_store(job, engine, plan, found.inputs, stop, talk, began)
            return told | {"left_out": found.left_out}


def encode_store(
    job: EncodeJob,
    engine: Engine,
    plan: EncodePlan,
    found: list[FoundInput],
    stop: StopRequest,
    talk: Talk,
    began: float,
) -> dict[str, Any]:
    """The job under the store's lock."""
    store = plan.store
    open_for_writing(store, plan.manifest)
    manifest = replace(read_manifest(store), status="running")
    work = plan_work(store, manifest.spec_hash, found, plan.samples_per_shard, job.retry, talk)
    found.clear()
    if work.todo:
        # A store that is added to is not complete until it is finished again.
        write_manifest(store, manifest)
    if work.todo and job.self_check and manifest.self_check is None:
        manifest = checked(manifest, engine, plan, work, talk)
    total = sum(work.inputs.count(unit) for unit in work.todo)
    if plan.clips is None:
        meter = Meter("encode", total, talk.progress, max(pick_workers(job.workers, total), 1))
    else:
        meter = Meter("encode", total, talk.progress, noun="frames")
    run = EncodeRun(job, engine, plan, manifest, work.inputs, stop, meter)
    (encode_units if plan.clips is None else encode_clips)(run, work.todo)
    final = finish(store, manifest, work.inputs.units, ChannelSums())
    return document(run, work, final, time.perf_counter() - began)


def checked(
    manifest: Manifest, engine: Engine, plan: EncodePlan, work: Work, talk: Talk
) -> Manifest:
    """The manifest with the self-check's figures: run once, before the first shard."""
    if plan.clips is None:
        pictures, keys = first_pictures(work.inputs, plan.recipe)
    else:
        pictures, keys = first_frames(work.inputs, plan.clips)
    if not pictures:
        talk.note("None of the first inputs can be read, so the self-check was left out.")
        return manifest
    manifest = replace(manifest, self_check=self_check(engine, pictures, keys))
    write_manifest(plan.store, manifest)
    return manifest


def first_pictures(inputs: Iterable[InputRow], recipe: Recipe) -> tuple[list[Tensor], list[str]]:
    """The first few inputs that can be read, of the first few dozen."""
    seconds = dict.fromkeys(IMAGE_STAGES, 0.0)
    rows = itertools.islice(inputs, 8 * CHECKED_INPUTS)
    prepared = (prepare(row, recipe, seconds) for row in rows)
    good = ((pixels, row.key) for row, pixels in prepared if pixels is not None)
    pairs = list(itertools.islice(good, CHECKED_INPUTS))
    return [pixels for pixels, _ in pairs], [key for _, key in pairs]


def first_frames(inputs: Iterable[InputRow], recipe: ClipRecipe) -> tuple[list[Tensor], list[str]]:
    """The first frame of the first few clips that can be read, of the first few dozen."""
    pictures: list[Tensor] = []
    keys: list[str] = []
    for row in itertools.islice(inputs, 8 * CHECKED_INPUTS):
        with (
            suppress(SampleError),
            open_frames(row.source, replace(recipe, frames=1), Meter("self-check", 1)) as clip,
        ):
            pictures += [frame.pixels for frame in clip.frames]
            keys += [row.key] * (len(pictures) - len(keys))
        if len(pictures) == CHECKED_INPUTS:
            break
    return pictures, keys


def document(run: EncodeRun, work: Work, final: Manifest, seconds: float) -> dict[str, Any]:
    """The --json document."""
    meter, store, totals = run.meter, run.plan.store, final.totals
    encoded_now, clips = run.committed["encoded"], run.plan.clips is not None
    return {
        "store": str(store),
        "model": final.model["name"],
        "encoded": encoded_now,
        "skipped": totals.encoded - encoded_now,
        "failed": totals.failed,
        "seconds": round(seconds, 3),
        "images_per_second": round(meter.final_rate, 2),
        "stages": meter.report(),
        "bottleneck": meter.bottleneck(),
        "media": "clips" if clips else "images",
        "frames": run.committed["frames"] if clips else None,
        "inputs": totals.inputs,
        "changed": work.changed,
        "shards": totals.shards,
        "bytes": totals.bytes,
        "latent_space": final.latent_space,
        "geometry": run.engine.model.spec.geometry,
        "device": run.engine.device_name,
        "dtype": run.engine.dtype,
        "self_check": final.self_check,
        "failures": str(Path(store) / FAILURES) if totals.failed else None,
        "startup_seconds": round(meter.startup, 3),
        "waited_seconds": round(meter.waited, 3),
    }
