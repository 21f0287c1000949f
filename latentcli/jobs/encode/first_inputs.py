"""Runs the self-check on the first inputs of a store, before its first shard."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace

from torch import Tensor

from latentcli.core.errors import SampleError
from latentcli.core.types import InputRow, Row
from latentcli.jobs.encode.plan import EncodePlan
from latentcli.jobs.inference.engine import Engine
from latentcli.jobs.inference.self_check import self_check
from latentcli.jobs.loader.clip_frames import ClipRecipe, open_frames
from latentcli.jobs.loader.prepare import Prepared
from latentcli.jobs.loader.readers import READERS, prepared_samples
from latentcli.jobs.runtime.meter import Meter
from latentcli.jobs.runtime.reporter import Reporter
from latentcli.shards.store.manifest import Manifest, write_manifest

CHECKED_INPUTS = 4
"""Pictures of the self-check."""
LOOKED_AT = 8 * CHECKED_INPUTS
"""Inputs that are tried for them."""


def check_once(
    manifest: Manifest,
    engine: Engine,
    plan: EncodePlan,
    inputs: Iterable[InputRow],
    reporter: Reporter,
) -> Manifest:
    """Runs the self-check and writes its figures; SelfCheckError where it fails."""
    if plan.clips is not None and plan.packed:
        reporter.note(f"The self-check is left out for clips in {READERS[plan.kind].noun}s.")
        return manifest
    if plan.clips is not None:
        looked = first_frames(inputs, plan.clips)
    else:
        reader = plan.reader(Meter("self-check", None))
        looked = (ready for _, ready in prepared_samples(reader, inputs, plan.recipe))
    pictures, keys = first_pictures(looked)
    if not pictures:
        reporter.note("None of the first inputs can be read, so the self-check was left out.")
        return manifest
    figures = self_check(engine, pictures, keys, plan.state, plan.store_dtype)
    manifest = replace(manifest, self_check=figures)
    write_manifest(plan.store, manifest)
    return manifest


def first_pictures(prepared: Iterable[Prepared]) -> tuple[list[Tensor], list[str]]:
    """The first few inputs that can be read, of the first few dozen."""
    looked = itertools.islice(prepared, LOOKED_AT)
    good = ((pixels, row.key) for row, pixels in looked if pixels is not None)
    pairs = list(itertools.islice(good, CHECKED_INPUTS))
    return [pixels for pixels, _ in pairs], [key for _, key in pairs]


def first_frames(inputs: Iterable[InputRow], recipe: ClipRecipe) -> Iterator[Prepared]:
    """The first frame of each clip; None where it cannot be read."""
    for source in inputs:
        row, frames = Row(source.key, source.source, "ok"), list[Tensor]()
        with (
            suppress(SampleError),
            open_frames(row.source, replace(recipe, frames=1), Meter("self-check", 1)) as clip,
        ):
            frames += [frame.pixels for frame in clip.frames]
        yield row, frames[0] if frames else None
