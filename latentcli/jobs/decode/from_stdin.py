"""Reads latents to decode from a tar stream on standard input, each once."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from torch import Tensor

from latentcli.core.errors import SampleError, StoreError
from latentcli.core.member_names import plain
from latentcli.core.types import Member, Sample
from latentcli.jobs.decode.latents import LatentClip, LatentSample, LatentSource
from latentcli.jobs.loader.clip_frames import Clock, fractions_of
from latentcli.jobs.runtime.stdio import STDIN, go_on, open_stdin
from latentcli.jobs.store.latent_store import latent_of
from latentcli.shards.tar.decoder import load_latents
from latentcli.shards.tar.samples import payload, read_samples
from latentcli.shards.tar.unique_keys import UniqueKeys
from latentcli.shards.tar.write import DOCUMENT, LATENT
from latentcli.shards.tensors.file import read_header

LATENTS = frozenset((".safetensors",))


@dataclass(frozen=True, slots=True)
class Piped:
    """One sample of the stream."""

    key: str
    parts: Mapping[str, Tensor] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    others: tuple[Member, ...] = ()
    """What is passed on with it."""
    problem: str | None = None
    """Why it has no latents."""


@contextmanager
def open_piped(state: str | None, check: Callable[[], None] = go_on) -> Iterator[LatentSource]:
    """The latents of a tar stream on standard input; StoreError where it has none.

    `state` is for latents that do not say it. `check` is called while nothing comes.
    """
    with open_stdin(check) as stdin:
        stream = with_unique_keys(
            map(piped, read_samples(stdin, LATENTS, unique=False, dots="keys"))
        )
        refused: list[Piped] = []
        for first in stream:
            if first.problem is None:
                yield source_of(first, itertools.chain(refused, [first], stream), state)
                return
            refused.append(first)
        reason = f": {refused[0].problem}" if refused else ""
        raise StoreError(
            f"Standard input holds no latents{reason}. decode - reads the tar stream that encode"
            " -o - writes."
        )


def piped(sample: Sample) -> Piped:
    """A sample of the tar; refused and damaged ones have a problem."""
    # A reader of tars shows names printable, and their writer had made them safe before.
    key = plain(plain(sample.key))
    if sample.problem is not None:
        return Piped(key, problem=sample.problem)
    latents, others = latents_of(sample)
    if latents is None:
        return Piped(key, problem="its sample holds no .safetensors file")
    try:
        data = latents.data
        metadata = read_header(partial(cut, data), len(data)).metadata
        parts = load_latents(data)
    except ValueError as error:
        return Piped(key, problem=f"its latents are damaged: {error}")
    kept = tuple(other for other in others if other.field.lower() != DOCUMENT)
    # In a shard of a store, the name of a member is only a part of the key.
    return Piped(metadata.get("key", key), parts, metadata, kept)


def with_unique_keys(samples: Iterable[Piped]) -> Iterator[Piped]:
    """The samples, with a problem where the key came before, maybe in another tar of the stream."""
    keys = UniqueKeys()
    for sample in samples:
        key, new = keys.claim(sample.key)
        if not new:
            problem = sample.problem or f"the key {sample.key} is in this stream twice"
            sample = Piped(key, problem=problem)
        yield sample


def latents_of(sample: Sample) -> tuple[Member | None, tuple[Member, ...]]:
    """The member with the latents, None where there is none, and the others."""
    for at, member in enumerate(sample.members):
        if member.field.lower() == LATENT:
            return member, (*sample.members[:at], *sample.members[at + 1 :])
    return payload(sample, LATENTS)


def cut(data: bytes, begin: int, end: int) -> bytes:
    """Bytes `begin` to `end`."""
    return data[begin:end]


def source_of(first: Piped, samples: Iterator[Piped], state: str | None) -> LatentSource:
    """A stream of samples as what decode reads, by what the first one says of itself."""
    metadata = first.metadata
    space, _, own = metadata.get("latent_space", "").partition("#")
    clips = metadata.get("media") == "clips"
    return LatentSource(
        path=Path(STDIN),
        count=None,
        state=own or state or "whitened",
        model=metadata.get("model"),
        space=space or None,
        weights_sha256=metadata.get("weights_sha256") or None,
        samples=lambda _: (picture_of(sample, metadata) for sample in samples),
        clips=(lambda _: (clip_of(sample, metadata) for sample in samples)) if clips else None,
    )


def picture_of(sample: Piped, metadata: Mapping[str, str]) -> LatentSample:
    """A sample as a picture; loading it raises SampleError where it is none."""
    return LatentSample(
        sample.key, partial(load, sample, metadata, 3), others=lambda: sample.others
    )


def clip_of(sample: Piped, metadata: Mapping[str, str]) -> LatentClip:
    """A sample as a clip, with the problem that it has."""

    def clock() -> Clock:
        return Clock(sample.parts["times"].tolist(), *fractions_of(sample.parts["clock"]))

    def others() -> tuple[Member, ...]:
        return sample.others

    try:
        latents = load(sample, metadata, 4)
        if len(clock().times) != len(latents):
            raise SampleError("read", "it has different numbers of frames and of frame times")
    except (KeyError, ValueError, ZeroDivisionError):
        problem = "it does not say when its frames are shown, so it is not a clip"
    except SampleError as error:
        problem = error.reason
    else:
        return LatentClip(
            *(sample.key, tuple(latents.shape), lambda start, stop: latents[start:stop], clock),
            others=others,
        )
    return LatentClip(sample.key, (0, 0, 0, 0), no_frames, clock, others=others, problem=problem)


def no_frames(start: int, stop: int) -> Tensor:
    """The frames of a clip that has a problem: SampleError."""
    raise SampleError("read", "it has no frames")


def load(sample: Piped, metadata: Mapping[str, str], rank: int) -> Tensor:
    """A sample's latents, with so many axes; of moments, the mode.

    SampleError where it has none, or where another job made them than the stream's first.
    """
    if sample.problem is not None:
        raise SampleError("read", sample.problem)
    space, first = sample.metadata.get("latent_space"), metadata.get("latent_space")
    if space != first:
        raise SampleError(
            "read",
            f"it holds latents of {space or 'no known space'}, the stream began with those of"
            f" {first or 'no known space'}",
        )
    latents = one_of(sample.parts)
    if latents is None or latents.ndim != rank:
        found = ", ".join(
            f"{name} {list(part.shape)}" for name, part in sorted(sample.parts.items())
        )
        axes = "[C, h, w]" if rank == 3 else "[T, C, h, w]"
        raise SampleError("read", f"it holds no latent {axes}, only {found or 'no tensor'}")
    return latents


def one_of(parts: Mapping[str, Tensor]) -> Tensor | None:
    """The latent among some parts, of moments the mode; the only tensor, whatever its name."""
    if len(parts) == 1:
        return next(iter(parts.values()))
    try:
        return latent_of(parts)
    except (KeyError, ValueError):
        return None
