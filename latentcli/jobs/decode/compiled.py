"""Has a decoder compiled for the sizes of a store's pictures, before the first of them."""

from __future__ import annotations

from contextlib import suppress

import torch

from latentcli.core.errors import SampleError
from latentcli.jobs.cluster.team import Team
from latentcli.jobs.config import DecodeJob
from latentcli.jobs.decode.latents import LatentSource
from latentcli.jobs.decode.output import DecodeRun
from latentcli.jobs.decode.pictures import decode_fitting, noise_ahead
from latentcli.jobs.inference.batch_size import latent_values
from latentcli.jobs.inference.compiled_model import threads_of
from latentcli.jobs.inference.compiling import check_sizes, on_for, refuse_temporal
from latentcli.jobs.inference.engine import Engine, with_code
from latentcli.jobs.loader.batches import full_batch
from latentcli.jobs.runtime.reporter import Reporter


def compiled_engine(
    job: DecodeJob, source: LatentSource, engine: Engine, team: Team, reporter: Reporter
) -> Engine:
    """The engine, with code for full batches of the latents' sizes where --compile is on.

    UsageError where these sizes are not known, or too many. Of several processes auto asks none,
    as they may count what is damaged otherwise.
    """
    clips = source.clips is not None
    count = None if clips or team.rank.world > 1 else source.count
    if not on_for(job, engine.accelerator, engine.info.family, source.sizes, count):
        return engine
    refuse_temporal(engine.model, clips=clips)
    check_sizes(source.sizes, "Decode a store that was encoded with --size or a few --buckets")
    batch_size = job.batch_size or engine.accelerator.batch_size
    spec, most = engine.model.spec, batch_size * latent_values(engine)
    batches = {}
    for width, height in source.sizes:
        h, w = spec.latent_size(height, width)
        batches[width, height] = full_batch(spec.channels * h * w, batch_size, most)
    return with_code(engine, "decode", batches, reporter.status)


def warm_up(run: DecodeRun) -> None:
    """Makes the code of --compile, on noise."""
    if run.engine.compiled is None or run.source.count == 0:
        return
    spec = run.engine.model.spec
    with run.stop.at_once():
        for piece in sorted(run.engine.compiled.pieces):
            shape = (piece.count, spec.channels, *spec.latent_size(piece.height, piece.width))
            latents = torch.randn(shape, generator=torch.Generator().manual_seed(0))
            keys = [str(number) for number in range(piece.count)]
            # Latents that do not fit fail later, each by its name.
            with threads_of(piece), suppress(SampleError):
                decode_fitting(run, latents, keys, noise_ahead(run, keys, shape))
