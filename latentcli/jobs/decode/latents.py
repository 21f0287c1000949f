"""Opens what `decode` can read: a store, one of its shards, or any safetensors file of latents."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from latentcli.core.errors import StoreError, UsageError
from latentcli.core.posterior import posterior_of
from latentcli.core.types import NORMAL_STATES, LatentSpec, Member
from latentcli.jobs.inference.engine import Engine
from latentcli.jobs.loader.clip_frames import Clock, fractions_of
from latentcli.jobs.store.latent_store import LatentStore
from latentcli.models.registry import find_preset
from latentcli.shards.storage.paths import AnyPath
from latentcli.shards.tensors.file import SafetensorsFile


@dataclass(frozen=True, slots=True)
class LatentSample:
    """One latent, not read yet."""

    key: str
    load: Callable[[], Tensor]
    """Reads it, [C, h, w]."""
    source: str | None = None
    """The picture that it was made from, where that is known."""
    others: Callable[[], tuple[Member, ...]] = tuple
    """What came with it and is passed on in a tar."""


@dataclass(frozen=True, slots=True)
class LatentClip:
    """The latents of one clip, not read yet."""

    key: str
    shape: tuple[int, ...]
    """(T, C, h, w)."""
    read: Callable[[int, int], Tensor]
    """Reads frames start to stop, [stop - start, C, h, w]."""
    clock: Callable[[], Clock]
    source: str | None = None
    """The video file that it was made from, where that is known."""
    others: Callable[[], tuple[Member, ...]] = tuple
    """What came with it and is passed on in a tar."""
    problem: str | None = None
    """Why it cannot be decoded; then it has no frames."""


@dataclass(frozen=True, slots=True)
class LatentSource:
    """Latents to decode, in order, and what they say of themselves."""

    path: AnyPath
    count: int | None
    """Pictures, or clips; None of a stream, whose end is not known."""
    state: str
    """whitened, scaled, raw or moments."""
    model: str | None
    """The model that made them, where they say it."""
    space: str | None
    """Latent space id without the state."""
    weights_sha256: str | None
    samples: Callable[[], Iterator[LatentSample]]
    """The pictures; nothing where there are clips."""
    clips: Callable[[], Iterator[LatentClip]] | None = None
    """The clips; None where there are pictures."""
    frames: int | None = None
    """Of all clips together, where their number is known."""

    @property
    def space_id(self) -> str:
        """Latent space id with the state."""
        return f"{self.space}#{self.state}"


def open_latents(path: AnyPath, state: str | None) -> LatentSource:
    """The source; `state` is for files that do not say it. StoreError where there is nothing."""
    if not path.exists():
        raise StoreError(
            f"There is no {path}: name a store folder, one of its shards, a .safetensors file, or -"
            " for a tar stream."
        )
    if path.is_file() and path.suffix != ".tar":
        file = SafetensorsFile(path)
        if file.metadata.get("format") != "latentcli":
            return foreign_file(file, state or "whitened")
    store = LatentStore(path)
    metadata = store.metadata
    space = metadata.get("latent_space", "").partition("#")[0]
    clips = partial(clips_of, store) if metadata.get("media") == "clips" else None
    lengths = [clip.shape[0] for clip in clips()] if clips else []
    return LatentSource(
        path=path,
        count=len(store) if clips is None else len(lengths),
        state=store.state,
        model=metadata.get("model"),
        space=space or None,
        weights_sha256=metadata.get("weights_sha256") or None,
        samples=lambda: (
            LatentSample(
                *(row.key, partial(read_latent, store, row.key), row.source or None),
                others=partial(store.others, row.key),
            )
            for row in store.rows()
            if row.status == "ok" and clips is None
        ),
        clips=clips,
        frames=sum(lengths),
    )


def clips_of(store: LatentStore) -> Iterator[LatentClip]:
    """The clips of a store, in order."""
    for row in store.rows():
        if row.status == "ok" and row.latent_shape is not None:
            yield LatentClip(
                row.key,
                row.latent_shape,
                partial(read_frames, store, row.key),
                partial(read_clock, store, row.key),
                row.source or None,
                partial(store.others, row.key),
            )


def read_frames(store: LatentStore, key: str, start: int, stop: int) -> Tensor:
    """Frames of a clip's latents [n, C, h, w]; of moments, the modes."""
    if store.state != "moments":
        return store.frames(key, start, stop)
    names = ("mean", "logsnr", "logvar")
    held = [name for name in names if store.has_part(key, name)]
    return posterior_of({name: store.frames(key, start, stop, name) for name in held}).mode()


def read_clock(store: LatentStore, key: str) -> Clock:
    """When the frames of a clip are shown."""
    times = store.frames(key, 0, sys.maxsize, "times").tolist()
    return Clock(times, *fractions_of(store.frames(key, 0, sys.maxsize, "clock")))


def read_latent(store: LatentStore, key: str) -> Tensor:
    """A store's latent [C, h, w]; of moments, the mode."""
    return store[key]


def foreign_file(file: SafetensorsFile, state: str) -> LatentSource:
    """Every tensor [C, h, w] of a file is a latent, and every [N, C, h, w] is N of them."""
    if state == "moments":
        raise UsageError("--latents moments cannot be told apart in a file that is no shard.")
    ranks = {name: len(entry.shape) for name, entry in file.entries.items()}
    wrong = [name for name, rank in ranks.items() if rank not in (3, 4)]
    if wrong or not ranks:
        found = ", ".join(f"{n} {list(file.entries[n].shape)}" for n in wrong[:3]) or "no tensor"
        raise StoreError(
            f"{file.path} is no file of latents: it has {found}; tensors must be [C, h, w] or"
            " [N, C, h, w]."
        )

    def samples() -> Iterator[LatentSample]:
        for name, rank in ranks.items():
            if rank == 3:
                yield LatentSample(name, partial(file.tensor, name))
                continue
            for i in range(file.entries[name].shape[0]):
                yield LatentSample(f"{name}_{i:05d}", partial(item_of, file, name, i))

    count = sum(file.entries[n].shape[0] if rank == 4 else 1 for n, rank in ranks.items())
    return LatentSource(file.path, count, state, None, None, None, samples)


def item_of(file: SafetensorsFile, name: str, index: int) -> Tensor:
    """One latent [C, h, w] of a tensor [N, C, h, w]."""
    return file.tensor(name)[index]


def check_space(source: LatentSource, engine: Engine, *, force: bool) -> None:
    """UsageError, with both ids named, where the model is not for these latents."""
    if force or source.space is None:
        return
    spec, info = engine.model.spec, engine.info
    compare_spaces(source, info.name, spec)
    # A decoder alone made no latents: its file is another one than the encoder's in any case.
    same_model = engine.model.can_encode and source.model in (info.preset_name, info.name)
    made, here = source.weights_sha256, info.weights_sha256
    if same_model and made and here and made != here:
        raise UsageError(
            f"{source.path} was made with {source.model} weights {made[:12]}, these are"
            f" {here[:12]}. Give the same weights with --weights, or --force."
        )


def check_preset_space(source: LatentSource, model: str, *, force: bool) -> None:
    """`check_space` for a preset, before its weights are looked for."""
    preset = find_preset(model)
    if preset is not None and source.space is not None and not force:
        compare_spaces(source, preset.name, preset.spec)


def compare_spaces(source: LatentSource, name: str, spec: LatentSpec) -> None:
    """UsageError, with both ids named, where the latents are of another space than the model's."""
    if source.space != spec.space:
        raise UsageError(
            f"{source.path} holds latents of {source.space_id}, but {name} decodes"
            f" {spec.space_id(source.state)}. Use the model that made them, or --force."
        )


def own_latents(engine: Engine, latents: Tensor, state: str) -> Tensor:
    """Latents [N, C, h, w] in a state, as the model's decode takes them."""
    return latents.float() if state in NORMAL_STATES else engine.model.whiten(latents)
