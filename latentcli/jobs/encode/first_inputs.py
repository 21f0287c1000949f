"""Runs the self-check on the first inputs of a store, before its first shard."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace

from torch import Tensor

from latentcli.core.errors import SampleError, SelfCheckError
from latentcli.core.types import InputRow, Row
from latentcli.jobs.encode.plan import EncodePlan, jpegs_of
from latentcli.jobs.inference.engine import Engine
from latentcli.jobs.inference.self_check import self_check
from latentcli.jobs.loader.clip_frames import ClipRecipe, open_frames
from latentcli.jobs.loader.prepare import Prepared, prepare_sample
from latentcli.jobs.loader.reader import Reader
from latentcli.jobs.loader.readers import READERS, prepared_samples
from latentcli.jobs.runtime.meter import Meter
from latentcli.jobs.runtime.reporter import Reporter
from latentcli.metrics.psnr import psnr
from latentcli.shards.store.manifest import Manifest, write_manifest

CHECKED_INPUTS = 4
"""Pictures of the self-check."""
LEAST_ALIKE = 35.0
"""dB of what two decoders give of a file, at the least: they round differently."""
LOOKED_AT = 8 * CHECKED_INPUTS
"""Inputs that are tried for them."""


def check_once(
    manifest: Manifest,
    engine: Engine,
    plan: EncodePlan,
    inputs: Iterable[InputRow],
    reporter: Reporter,
) -> Manifest:
    """Runs the self-check and writes its figures; SelfCheckError where it fails.

    Where a device decodes files, that is checked first.
    """
    if plan.clips is not None and plan.packed:
        reporter.note(f"The self-check is skipped for clips in {READERS[plan.kind].noun}s.")
        return manifest
    if plan.clips is not None:
        looked = first_frames(inputs, plan.clips)
    else:
        reader = plan.reader(Meter("self-check", None))
        recipe = replace(plan.recipe, decode_on="cpu")
        looked = (ready for _, ready in prepared_samples(reader, inputs, recipe))
        check_device(engine, plan, inputs, reader)
    pictures, keys = first_pictures(looked)
    if not pictures:
        reporter.note("None of the first inputs can be read, so the self-check was skipped.")
        return manifest
    figures = self_check(engine, pictures, keys, plan.state, plan.store_dtype)
    manifest = replace(manifest, self_check=figures)
    write_manifest(plan.store, manifest)
    return manifest


def check_device(
    engine: Engine, plan: EncodePlan, inputs: Iterable[InputRow], reader: Reader
) -> None:
    """SelfCheckError where the device decodes the first files to other pictures than a CPU."""
    jpegs = jpegs_of(engine, plan)
    if jpegs is None:
        return
    whole = replace(plan.recipe.preprocess, reducing_gaps=None)
    recipe = replace(plan.recipe, decode_on="cpu", preprocess=whole)
    looked = itertools.islice(prepared_samples(reader, inputs, plan.recipe), LOOKED_AT)
    files = ((raw, row, file) for raw, (row, file) in looked if file is not None and file.ndim == 1)
    for raw, row, file in itertools.islice(files, CHECKED_INPUTS):
        _, expected = prepare_sample(raw, recipe, {})
        if expected is None:
            continue  # it fails in the job, too
        decibels = psnr(jpegs.pixels([row], [file]).cpu(), expected[None]).item()
        if decibels < LEAST_ALIKE:
            raise SelfCheckError(
                f"Self-check: the device and the CPU decode {row.key} differently, with a PSNR of"
                f" {decibels:.1f} dB; more than {LEAST_ALIKE:g} dB is usual. Leave out"
                " --decode-on gpu, or go on anyway with --no-self-check."
            )


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
