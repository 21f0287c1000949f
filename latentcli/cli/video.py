"""Defines `latentcli video-embed` and `video-distance`: features of clips, and their distance."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from latentcli.cli import words
from latentcli.cli.command import command
from latentcli.cli.output import Output
from latentcli.core.errors import UsageError
from latentcli.jobs.cluster.environment import refuse_ranks
from latentcli.jobs.runtime.failures import check_failed
from latentcli.jobs.runtime.process import loading
from latentcli.jobs.video.config import VideoDistanceJob, VideoEmbedJob


@command(VideoEmbedJob)
def video_embed(out: Output, job: VideoEmbedJob, given: frozenset[str]) -> None:
    """Compute VideoMAE V2 features of clips, one per group of frames, for video-distance."""
    refuse_ranks("video-embed", os.environ)
    if not job.output:
        raise UsageError("Say where the features go: -o FEATURES.safetensors.")
    with out.reporter(job, "video-embed") as reporter:
        with loading():
            from latentcli.jobs.video.embed import run_video_embed

        document = run_video_embed(job, reporter)
    out.show(document, summary=embedded)
    check_failed(document["failed"], document["clips"] + document["failed"], job.max_bad)


def embedded(document: Mapping[str, Any]) -> Iterator[str]:
    """What was done, where it is, and what comes next."""
    through = f" through {document['autoencoder']}" if document["autoencoder"] else ""
    clips, groups = words.count(document["clips"], "clip"), document["features"]
    frames = document["settings"]["frames"]
    yield (
        f"Embedded {clips}{through}: {words.count(groups, 'group')} of {frames} frames"
        f" ({words.duration(document['seconds'])})."
    )
    if dropped := document["dropped_frames"]:
        yield f"Dropped {words.count(dropped, 'frame')} after the last whole groups."
    yield from words.failures(document)
    yield from words.slowest(document)
    yield f"Features: {document['output']} ({groups:,} x {document['dim']:,})"
    yield f"Next: {words.command('video-distance', 'OTHER.safetensors', document['output'])}"


@command(VideoDistanceJob)
def video_distance(out: Output, job: VideoDistanceJob, given: frozenset[str]) -> None:
    """Compute the Frechet distance between two files of features, of clips or others."""
    if not job.a or not job.b:
        raise UsageError(
            "Give two files of features, such as originals.safetensors reconstructed.safetensors;"
            " latentcli video-embed makes them."
        )
    with out.reporter():
        with loading():
            from latentcli.jobs.video.distance import run_video_distance
            from latentcli.reports.tables import facts_table

        document = run_video_distance(job)
    facts = {
        "distance": f"{document['distance']:.6g}",
        "covariances": document["compat"],
        **{name.upper(): described(document[name]) for name in ("a", "b")},
    }
    out.show(document, data=lambda _: [facts_table(facts)], summary=lambda shown: shown["notes"])


def described(part: Mapping[str, Any]) -> str:
    """A file, its shape and how it was made, as far as it says so."""
    made = part["extractor"]
    if made and part["autoencoder"]:
        made = f"{made} of clips through {part['autoencoder']}"
    shape = f"{part['rows']:,} x {part['dim']:,}"
    return f"{part['path']} ({shape}{', ' + made if made else ''})"
