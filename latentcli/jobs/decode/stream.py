"""Decodes pictures: the stream of the decode job, from latents to the threads that write."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from latentcli.core.errors import SampleError
from latentcli.jobs.decode.decoded import Decoded
from latentcli.jobs.decode.latents import LatentSample
from latentcli.jobs.decode.output import DecodeRun, check_safe, unsound, write_picture, writing
from latentcli.jobs.decode.pictures import decode_fitting, noise_ahead
from latentcli.jobs.inference.batch_size import latent_values
from latentcli.jobs.inference.noise import Noise
from latentcli.jobs.loader.batches import batches
from latentcli.jobs.loader.lookahead import lookahead


def decode_all(run: DecodeRun) -> None:
    """read | batch, decode | encode_image, write: pictures are written by a pool of threads."""
    with writing(run) as submit:
        for decoded in decoded_groups(run, map(run.source.samples, ([u] for u in run.units()))):
            for index, key in enumerate(decoded.keys):
                submit(write_picture, run, key, decoded, index)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A latent [C, h, w] and its key."""

    key: str
    latent: Tensor


@dataclass(frozen=True, slots=True)
class Group:
    """Latents of one shape that are decoded together."""

    samples: Sequence[Loaded]
    noise: Noise | None

    @property
    def keys(self) -> list[str]:
        """Of its samples."""
        return [sample.key for sample in self.samples]

    def alone(self) -> Iterator[Group]:
        """Each of its samples as a group."""
        for i, sample in enumerate(self.samples):
            yield Group([sample], None if self.noise is None else self.noise[i : i + 1])


def decoded_groups(run: DecodeRun, units: Iterable[Iterable[LatentSample]]) -> Iterator[Decoded]:
    """Pictures of one batch after the other; samples that fail are noted.

    While a GPU is at a batch the noise of the next one is drawn. On a CPU that would take the cores
    from the model, and the next batch of a pipe would have to be waited for.
    """
    ahead = int(run.engine.accelerator.gpu and run.source.count is not None)
    for group in lookahead(groups(run, units), ahead):
        run.stop.check()
        yield from decode_group(run, group)


def groups(run: DecodeRun, units: Iterable[Iterable[LatentSample]]) -> Iterator[Group]:
    """The latents in batches, none of which has those of two units.

    So what a picture shares its batch with does not depend on who decodes the other units.
    """
    batch_size = run.job.batch_size or run.engine.accelerator.batch_size
    most = batch_size * latent_values(run.engine)
    for samples in units:
        wanted = loaded(run, samples)
        for batch in batches(wanted, lambda sample: sample.latent, batch_size, most):
            keys = [sample.key for sample in batch]
            yield Group(batch, noise_ahead(run, keys, batch[0].latent.shape))


def loaded(run: DecodeRun, samples: Iterable[LatentSample]) -> Iterator[Loaded]:
    """The samples to decode: sound ones whose picture is not there yet, or not asked to be kept."""
    for sample in samples:
        run.stop.check()
        run.failures.seen += 1
        try:
            check_safe(run, sample.key, sample.source)
            if run.job.skip_existing and run.path(sample.key).exists():
                run.skipped.append(sample.key)
                run.meter.advance(1)
                continue
            latent = load(run, sample)
        except SampleError as error:
            run.meter.advance(1, 1)
            run.fail(sample.key, error, sample.unit if error.stage == "read" else None)
        else:
            yield Loaded(sample.key, latent)


def load(run: DecodeRun, sample: LatentSample) -> Tensor:
    """Reads a sample's latent; SampleError where it cannot be read, or decoded."""
    with run.meter.stage("read", 1):
        latent = sample.load()
    run.meter.begin()
    if (reason := unsound(latent, run.engine)) is not None:
        raise SampleError("decode", reason)
    return latent


def decode_group(run: DecodeRun, group: Group) -> Iterator[Decoded]:
    """The pictures of a group, in one batch if they all fit.

    Where not even one fits, each is tried alone, and only those that do not fit then have failed.
    """
    latents = torch.stack([sample.latent for sample in group.samples])
    try:
        decoded = decode_fitting(run, latents, group.keys, group.noise)
    except SampleError as error:
        problem = SampleError(error.stage, error.reason)  # without what its frames hold on to
    else:
        yield decoded
        run.meter.advance(len(group.samples))
        return
    if len(group.samples) > 1:
        for each in group.alone():
            yield from decode_group(run, each)
        return
    run.meter.advance(1, 1)
    run.fail(group.samples[0].key, problem)
