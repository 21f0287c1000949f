"""Reads latents to decode from a store or one of its shards, whatever of it is damaged."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from torch import Tensor

from latentcli.core.errors import IncompleteStore, SampleError, StoreError
from latentcli.core.posterior import posterior_of
from latentcli.core.types import Member
from latentcli.jobs.decode.latents import LatentClip, LatentSample, LatentSource
from latentcli.jobs.loader.clip_frames import Clock, fractions_of
from latentcli.jobs.store.latent_store import LatentStore, latent_of
from latentcli.shards.storage.paths import AnyPath
from latentcli.shards.store.presence import AGAIN


def open_store_latents(path: AnyPath, *, closely: bool = True) -> LatentSource:
    """The latents of a store or a shard.

    Samples of damaged units are among them, where a commit record tells what was there; reading
    one raises SampleError. Whether all records are sound is found out `closely`, by reading them.
    StoreError where there is no store; IncompleteStore where nothing of it can be read.
    """
    store = LatentStore(path)
    there = store.look_closely() if closely else store.presence
    if not there.units and not there.is_whole:
        raise IncompleteStore(f"Nothing of {path} can be read ({there.describe()}). {AGAIN}")
    metadata = store.metadata
    units = sorted([*there.units, *there.recorded])
    clips = partial(clips_of, store) if metadata.get("media") == "clips" else None
    lengths = [clip.shape[0] for clip in clips(units)] if clips else []
    return LatentSource(
        path=path,
        count=len(store) + there.unreadable if clips is None else len(lengths),
        state=store.state,
        model=metadata.get("model"),
        space=metadata.get("latent_space", "").partition("#")[0] or None,
        weights_sha256=metadata.get("weights_sha256") or None,
        samples=partial(samples_of, store) if clips is None else lambda units: iter(()),
        clips=clips,
        frames=sum(lengths),
        units=units,
        missing=there.missing,
        sizes=sizes_of(store),
        gaps=there.describe(),
    )


def sizes_of(store: LatentStore) -> Sequence[tuple[int, int]]:
    """(W, H) that pictures of a store were brought to; none where each kept its own.

    A shard does not say it.
    """
    fields = {} if store.manifest is None else store.manifest.preprocessing
    if fields.get("size"):
        width, height = fields["size"]
        return ((width, height),)
    table = (fields.get("buckets") or {}).get("table", ())
    return tuple((width, height) for width, height in table)


def samples_of(store: LatentStore, units: Iterable[int]) -> Iterator[LatentSample]:
    """The pictures of some units, in order."""
    for unit in units:
        for row in store.unit_rows(unit):
            if row.status == "ok":
                yield LatentSample(
                    row.key,
                    partial(read_latent, store, row.key, unit),
                    row.source or None,
                    partial(read_others, store, row.key, unit),
                    unit,
                )


def clips_of(store: LatentStore, units: Iterable[int]) -> Iterator[LatentClip]:
    """The clips of some units, in order."""
    for unit in units:
        for row in store.unit_rows(unit):
            if row.status == "ok" and row.latent_shape is not None:
                yield LatentClip(
                    row.key,
                    row.latent_shape,
                    partial(read_frames, store, row.key, unit),
                    partial(read_clock, store, row.key, unit),
                    row.source or None,
                    partial(read_others, store, row.key, unit),
                    unit=unit,
                )


@contextmanager
def reading_sample(store: LatentStore, unit: int) -> Iterator[None]:
    """SampleError where the unit is damaged, and in place of what its shard's damage raises."""
    if (why := store.presence.damaged.get(unit)) is not None:
        raise SampleError("read", why)
    try:
        yield
    except StoreError as error:
        raise SampleError("read", str(error).removesuffix(".")) from error
    except (KeyError, ValueError, ZeroDivisionError) as error:
        raise SampleError("read", f"its tensors are not a latent: {error}") from error


def read_latent(store: LatentStore, key: str, unit: int) -> Tensor:
    """A store's latent [C, h, w]; of moments, the mode."""
    with reading_sample(store, unit):
        return latent_of(store.parts(key, unit))


def read_others(store: LatentStore, key: str, unit: int) -> tuple[Member, ...]:
    """What came with a sample."""
    with reading_sample(store, unit):
        return store.others(key, unit=unit)


def read_frames(store: LatentStore, key: str, unit: int, start: int, stop: int) -> Tensor:
    """Frames of a clip's latents [n, C, h, w]; of moments, the modes."""
    with reading_sample(store, unit):
        if store.state != "moments":
            return store.frames(key, start, stop, unit=unit)
        names = ("mean", "logsnr", "logvar")
        held = [name for name in names if store.has_part(key, name, unit)]
        parts = {name: store.frames(key, start, stop, name, unit) for name in held}
        return posterior_of(parts).mode()


def read_clock(store: LatentStore, key: str, unit: int) -> Clock:
    """When the frames of a clip are shown."""
    with reading_sample(store, unit):
        times = store.frames(key, 0, sys.maxsize, "times", unit).tolist()
        return Clock(times, *fractions_of(store.frames(key, 0, sys.maxsize, "clock", unit)))
