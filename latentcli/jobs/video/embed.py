"""Runs the video-embed job: a file with a feature vector for each group of frames of the clips."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latentcli import __version__
from latentcli.core.errors import LatentCliError, SampleError, UsageError
from latentcli.core.options import check_options
from latentcli.images.preprocess import PreprocessSpec
from latentcli.jobs.inference.accelerator import Accelerator, pick_device
from latentcli.jobs.inference.capabilities import (
    refuse_decoder,
    refuse_decoder_preset,
    refuse_encoder,
)
from latentcli.jobs.inference.engine import (
    Engine,
    inference_config,
    load_engine,
)
from latentcli.jobs.loader.clip_frames import (
    ClipRecipe,
    OpenedClip,
    all_counted,
    count_frames,
    expected_frames,
    open_frames,
    pixels_of,
)
from latentcli.jobs.loader.find_media import find_media
from latentcli.jobs.loader.readers import READERS
from latentcli.jobs.runtime.failures import Failures
from latentcli.jobs.runtime.meter import Meter
from latentcli.jobs.runtime.places import try_file
from latentcli.jobs.runtime.reporter import SILENT, Reporter
from latentcli.jobs.runtime.signals import StopRequest, stop_on_signals
from latentcli.jobs.video.config import PREPROCESS, VideoEmbedJob
from latentcli.jobs.video.extractor import Extractor, load_extractor
from latentcli.jobs.video.feature_file import FeatureSpool, check_output, write_features
from latentcli.jobs.video.frame_groups import Group, groups_of, reconstructed, resized
from latentcli.shards.sources.file_list import FoundInput, FoundInputs


@dataclass(slots=True)
class Embedding:
    """What the functions below work with."""

    job: VideoEmbedJob
    accelerator: Accelerator
    extractor: Extractor
    engine: Engine | None
    meter: Meter
    stop: StopRequest
    spool: FeatureSpool
    failures: Failures
    clips: int = 0
    dropped: int = 0
    """Frames behind the last whole group of their clips."""

    @property
    def batch_size(self) -> int:
        """Groups at once."""
        return self.job.batch_size or self.accelerator.groups


def run_video_embed(job: VideoEmbedJob, reporter: Reporter = SILENT) -> dict[str, Any]:
    """The --json document of `video-embed`; the file is written when all clips are through.

    LatentCliError where no clip gave a group of frames.
    """
    check_options(job)
    inference_config(job)
    check_output(Path(job.output))
    try_file("--output", job.output)
    if job.model is not None:
        refuse_decoder_preset(job.model)
    inputs = find_clips(job, reporter)
    reporter.status("Loading the networks")
    where = pick_device(job.device)
    where.prepare()
    extractor = load_extractor(job.weights, where.device, job.frames, job.size)
    meter = Meter("video-embed", len(inputs), reporter.progress, noun="frames", gpu=where.gpu)
    spool = FeatureSpool(extractor.network.config.dim)
    with closing(spool), stop_on_signals("Nothing was kept.") as stop:
        failures = Failures(job.on_error, job.max_bad, len(inputs), "nothing was kept")
        with stop.at_once():
            model = load_autoencoder(job)
        run = Embedding(job, where, extractor, model, meter, stop, spool, failures)
        embed_clips(run, inputs)
        if not spool.count:
            first = run.failures.noted[0]
            raise LatentCliError(
                f"No clip could be used; the first of {len(inputs):,}, {first['key']}:"
                f" {first['error']}."
            )
        write_features(Path(job.output), spool, metadata(run))
        return document(run)


def find_clips(job: VideoEmbedJob, reporter: Reporter) -> FoundInputs:
    """The clips of the sources; UsageError where they are packed."""
    found = find_media(job.sources, "clips", reporter)
    if found.packed:
        noun = READERS[found.kind].noun
        raise UsageError(f"video-embed takes clips as files, not in {noun}s: unpack them first.")
    return found.inputs


def load_autoencoder(job: VideoEmbedJob) -> Engine | None:
    """The model that the frames go through; UsageError where it lacks a half."""
    if job.model is None:
        if job.model_weights is not None or job.revision is not None:
            option = "--revision" if job.model_weights is None else "--model-weights"
            raise UsageError(f"{option} belongs to a --model, and none is given.")
        return None
    engine = load_engine(
        job.model,
        weights=job.model_weights,
        revision=job.revision,
        device=job.device,
        dtype=job.dtype,
    )
    refuse_decoder(engine)
    refuse_encoder(engine)
    return engine


def embed_clips(run: Embedding, inputs: FoundInputs) -> None:
    """All clips, one after the other; one that fails leaves nothing behind."""
    job = run.job
    recipe = ClipRecipe(job.max_pixels, PreprocessSpec(None, 1), job.stride)
    for number, row in enumerate(inputs):
        before, dropped = run.spool.count, run.dropped
        try:
            with open_frames(row.path, recipe, run.meter, run.stop.check) as clip:
                count_frames(run.meter, expected_frames(clip.info, recipe), number, len(inputs))
                embed_clip(run, row, clip)
        except SampleError as error:
            run.spool.cut(before)
            run.dropped = dropped
            run.meter.advance(0, 1)
            run.failures.add(row.key, row.path, f"{error.stage}: {error.reason}")
            continue
        run.clips += 1
    all_counted(run.meter)


def embed_clip(run: Embedding, row: FoundInput, clip: OpenedClip) -> None:
    """The features of one clip; SampleError where it is shorter than a group."""
    before, waiting = run.spool.count, list[Tensor]()
    for ready in prepared_groups(run, row, clip):
        waiting.append(ready)
        if len(waiting) == run.batch_size:
            extract(run, waiting)
            waiting = []
    if waiting:
        extract(run, waiting)
    if run.spool.count == before:
        raise SampleError(
            "preprocess", f"clip has fewer than {run.job.frames} frames, which is one group"
        )


def prepared_groups(run: Embedding, row: FoundInput, clip: OpenedClip) -> Iterator[Tensor]:
    """float32 [3, T, size, size] of each group of a clip."""
    job, meter = run.job, run.meter
    for group in groups_of(map(pixels_of, clip.frames), job.frames):
        run.stop.check()
        meter.begin()
        if not isinstance(group, Group):
            run.dropped += group
            return
        frames = group.frames
        if run.engine is not None:
            with meter.stage("autoencoder", len(frames)):
                frames = reconstructed(run.engine, group, row.key, job)
        with meter.stage("resize", len(frames)):
            yield resized(frames, job.size, job.preprocess)


def extract(run: Embedding, groups: list[Tensor]) -> None:
    """The features of some groups of one clip, onto the spool."""
    frames = len(groups) * run.job.frames
    with run.meter.stage("features", frames):
        found = run.extractor.features(torch.stack(groups))
    if not found.isfinite().all():
        raise LatentCliError(
            "The network for features gives values that are NaN or infinite, so its weights are"
            " damaged or of another network. Nothing was written."
        )
    run.spool.add(found)
    run.meter.advance(frames)


def metadata(run: Embedding) -> dict[str, str]:
    """What the file says of itself; `differences` compares some of it."""
    job, engine = run.job, run.engine
    fields = {
        "extractor": run.extractor.name,
        "weights_sha256": run.extractor.sha256,
        "frames": str(job.frames),
        "stride": str(job.stride),
        "size": f"{job.size}x{job.size}",
        "preprocess": PREPROCESS[job.preprocess],
        "clips": str(run.clips),
        "dropped_frames": str(run.dropped),
        "made_by": f"latentcli {__version__}",
    }
    if engine is None:
        return fields
    return fields | {
        "autoencoder": engine.info.preset_name or Path(engine.info.name).name,
        "autoencoder_sha256": engine.info.weights_sha256 or "",
        "autoencoder_dtype": engine.dtype,
        "autoencoder_settings": f"steps {job.steps}, sampler {job.sampler}, schedule"
        f" {job.schedule}, pdg {job.pdg_strength if job.pdg else 'off'}, seed {job.seed},"
        f" num_frames {job.num_frames or 'own'}",
    }


def document(run: Embedding) -> dict[str, Any]:
    """The --json document."""
    fields = metadata(run)
    return {
        "output": run.job.output,
        "features": run.spool.count,
        "dim": run.spool.dim,
        "clips": run.clips,
        "failed": len(run.failures.noted),
        "failures": run.failures.noted,
        "reasons": run.failures.reasons.counts(),
        "reason_examples": run.failures.reasons.examples(),
        "dropped_frames": run.dropped,
        "extractor": run.extractor.name,
        "weights_sha256": run.extractor.sha256,
        "autoencoder": fields.get("autoencoder"),
        "settings": {
            name: fields.get(name)
            for name in ("frames", "stride", "size", "preprocess", "autoencoder_settings")
        },
        "device": run.accelerator.name,
        "seconds": round(time.perf_counter() - run.meter.started, 3),
        **run.meter.paces(),
    }
