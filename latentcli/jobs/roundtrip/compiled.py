"""Has the models of a comparison compiled for its sizes, before the first picture."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import torch

from latentcli.images.preprocess import PreprocessSpec
from latentcli.jobs.config import RoundtripJob
from latentcli.jobs.inference.batch_size import batch_elements
from latentcli.jobs.inference.compiled_model import Piece, sample_pixels, threads_of
from latentcli.jobs.inference.compiling import check_sizes, known_sizes, on_for, refuse_temporal
from latentcli.jobs.inference.engine import Engine, with_code
from latentcli.jobs.loader.batches import full_batch
from latentcli.jobs.loader.find_media import FoundMedia
from latentcli.jobs.roundtrip.compare import Comparison, decode, encode, noise_ahead
from latentcli.jobs.roundtrip.models import ComparedModel
from latentcli.jobs.runtime.reporter import Reporter


def with_codes(
    job: RoundtripJob,
    compared_models: Sequence[ComparedModel],
    preprocess: PreprocessSpec,
    found: FoundMedia,
    reporter: Reporter,
) -> list[ComparedModel]:
    """The models, each with code for full batches where --compile is on, or gains by auto."""
    clips, sizes = found.media == "clips", known_sizes(preprocess)
    count = None if clips or found.packed else len(found.inputs)
    made: dict[int, Engine] = {}

    def coded(engine: Engine) -> Engine:
        if id(engine) in made:
            return made[id(engine)]
        on = on_for(job, engine.accelerator, engine.info.family, sizes, count)
        if on:
            refuse_temporal(engine.model, clips=clips)
            check_sizes(sizes, "Give --size, or a few buckets with --buckets")
        made[id(engine)] = with_both(job, engine, sizes, reporter) if on else engine
        return made[id(engine)]

    return [
        ComparedModel(each.name, coded(each.encoder), coded(each.decoder))
        for each in compared_models
    ]


def with_both(
    job: RoundtripJob, engine: Engine, sizes: Sequence[tuple[int, int]], reporter: Reporter
) -> Engine:
    """The engine with code for both ways."""
    batch_size = job.batch_size or engine.accelerator.batch_size
    most = batch_elements(batch_size)
    batches = {
        (width, height): full_batch(3 * width * height, batch_size, most) for width, height in sizes
    }
    for op in ("encode", "decode"):
        engine = with_code(engine, op, batches, reporter.status)
    return engine


def warm_up(comparison: Comparison) -> None:
    """Makes the code of --compile, on noise."""
    done = set[tuple[int, Piece]]()
    for compared in comparison.compared_models:
        for op, engine in (("encode", compared.encoder), ("decode", compared.decoder)):
            pieces = engine.compiled.pieces if engine.compiled is not None else ()
            for piece in sorted(pieces):
                if piece.op == op and (id(engine), piece) not in done:
                    done.add((id(engine), piece))
                    # Pictures that do not fit fail later, each by its name.
                    with threads_of(piece), suppress(torch.OutOfMemoryError):
                        run_once(comparison, compared, piece)


def run_once(comparison: Comparison, compared: ComparedModel, piece: Piece) -> None:
    """One piece as the job has it."""
    keys = [str(number) for number in range(piece.count)]
    if piece.op == "encode":
        if comparison.cached is None:
            images = comparison.accelerator.to_device(sample_pixels(piece))
            encode(comparison, compared, images, keys)
        return
    spec = compared.decoder.model.spec
    shape = (piece.count, spec.channels, *spec.latent_size(piece.height, piece.width))
    draw = torch.Generator().manual_seed(0)
    latents = comparison.accelerator.to_device(torch.randn(shape, generator=draw))
    noise = noise_ahead(comparison, keys, (3, piece.height, piece.width))
    started = None if noise is None else comparison.accelerator.to_device(noise.ready())
    decode(comparison, compared, latents, keys, started, frames=False)
