"""Settles which captions and other fields a job takes along, and what reads them."""

from __future__ import annotations

from dataclasses import replace

from latentcli.core.fields import CaptionRule, caption_rule
from latentcli.jobs.config import EncodeJob
from latentcli.jobs.encode.plan import store_of
from latentcli.shards.sources.companions import Companions
from latentcli.shards.store.roots import Roots, read_roots

USUAL = "auto"
"""What is taken along where neither the job nor its store says it."""


def with_captions(job: EncodeJob, roots: Roots) -> EncodeJob:
    """The job with its captions settled: as it says itself, else as its store was made."""
    return replace(job, captions=job.captions or roots.captions or USUAL)


def texts_of(job: EncodeJob) -> CaptionRule | None:
    """What of the texts beside its inputs a job takes along; None where it takes none."""
    return caption_rule(job.captions or read_roots(store_of(job)).captions or USUAL)


def companions_of(mode: str | None, roots: Roots, *, packed: bool) -> Companions | None:
    """What reads the texts beside files; None where none are taken, or they are in the inputs."""
    rule = None if mode is None or packed else caption_rule(mode)
    return None if rule is None else Companions(roots.paths, rule)
