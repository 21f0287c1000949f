"""A store that is about to be written in; its manifest with the self-check's figures out."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace

from torch import Tensor

from latentcli.core.errors import SampleError
from latentcli.core.types import InputRow
from latentcli.jobs.encode.plan import EncodePlan
from latentcli.jobs.inference.engine import Engine
from latentcli.jobs.inference.self_check import self_check
from latentcli.jobs.loader.clip_frames import ClipRecipe, open_frames
from latentcli.jobs.loader.find_media import SUFFIXES
from latentcli.jobs.loader.prepare import Prepared, RawSample, Recipe, prepare, prepare_sample
from latentcli.jobs.loader.tar_stream import Digesting, open_tar
from latentcli.jobs.loader.tar_tasks import TarIntake
from latentcli.jobs.runtime.meter import IMAGE_STAGES, Meter
from latentcli.jobs.runtime.reporter import Reporter
from latentcli.shards.sources.expand import PIPE
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
    if plan.clips is not None and not plan.tars:
        pictures, keys = first_frames(inputs, plan.clips)
    elif plan.clips is None:
        read = samples_of_tars(inputs, plan.recipe) if plan.tars else files(inputs, plan.recipe)
        pictures, keys = first_pictures(read)
    else:
        reporter.note("The self-check is left out for clips in tars.")
        return manifest
    if not pictures:
        reporter.note("None of the first inputs can be read, so the self-check was left out.")
        return manifest
    manifest = replace(manifest, self_check=self_check(engine, pictures, keys))
    write_manifest(plan.store, manifest)
    return manifest


def first_pictures(prepared: Iterable[Prepared]) -> tuple[list[Tensor], list[str]]:
    """The first few inputs that can be read, of the first few dozen."""
    looked = itertools.islice(prepared, LOOKED_AT)
    good = ((pixels, row.key) for row, pixels in looked if pixels is not None)
    pairs = list(itertools.islice(good, CHECKED_INPUTS))
    return [pixels for pixels, _ in pairs], [key for _, key in pairs]


def files(inputs: Iterable[InputRow], recipe: Recipe) -> Iterator[Prepared]:
    """Inputs that are files, prepared one at a time."""
    seconds = dict.fromkeys(IMAGE_STAGES, 0.0)
    return (prepare(row, recipe, seconds) for row in inputs)


def samples_of_tars(
    inputs: Iterable[InputRow],
    recipe: Recipe,
    read: Callable[[int, RawSample], None] = lambda count, raw: None,
) -> Iterator[Prepared]:
    """The samples of tars, prepared one at a time.

    `read` is told of the bytes taken so far and of the sample.

    Commands are passed over: running one twice may not be wanted.
    """
    seconds = dict.fromkeys(IMAGE_STAGES, 0.0)
    intake = TarIntake(SUFFIXES["images"], Meter("self-check", None))
    before = 0
    for tar in inputs:
        if tar.source.startswith(PIPE):
            continue
        with open_tar(tar.source) as stream:
            counting = Digesting(stream)
            for raw in intake.samples(tar, counting):
                read(before + counting.bytes, raw)
                yield prepare_sample(raw, recipe, seconds)
            before += max(counting.bytes, tar.size)


def first_frames(inputs: Iterable[InputRow], recipe: ClipRecipe) -> tuple[list[Tensor], list[str]]:
    """The first frame of the first few clips that can be read, of the first few dozen."""
    pictures: list[Tensor] = []
    keys: list[str] = []
    for row in itertools.islice(inputs, LOOKED_AT):
        with (
            suppress(SampleError),
            open_frames(row.source, replace(recipe, frames=1), Meter("self-check", 1)) as clip,
        ):
            pictures += [frame.pixels for frame in clip.frames]
            keys += [row.key] * (len(pictures) - len(keys))
        if len(pictures) == CHECKED_INPUTS:
            break
    return pictures, keys
