"""Defines the latents that `decode` reads, and checks that a model is for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from latentcli.core.errors import UsageError
from latentcli.core.types import NORMAL_STATES, LatentSpec, Member
from latentcli.jobs.inference.engine import Engine
from latentcli.jobs.loader.clip_frames import Clock
from latentcli.models.registry import find_preset
from latentcli.shards.storage.paths import AnyPath


@dataclass(frozen=True, slots=True)
class LatentSample:
    """One latent, not read yet."""

    key: str
    load: Callable[[], Tensor]
    """Reads it, [C, h, w]; SampleError where it cannot be read."""
    source: str | None = None
    """The picture that it was made from, where that is known."""
    others: Callable[[], tuple[Member, ...]] = tuple
    """What came with it and is passed on in a tar."""
    unit: int | None = None
    """The unit of the store that it is in."""


@dataclass(frozen=True, slots=True)
class LatentClip:
    """The latents of one clip, not read yet."""

    key: str
    shape: tuple[int, ...]
    """(T, C, h, w)."""
    read: Callable[[int, int], Tensor]
    """Reads frames start to stop, [stop - start, C, h, w]; SampleError where it cannot."""
    clock: Callable[[], Clock]
    source: str | None = None
    """The video file that it was made from, where that is known."""
    others: Callable[[], tuple[Member, ...]] = tuple
    """What came with it and is passed on in a tar."""
    problem: str | None = None
    """Why it cannot be decoded; then it has no frames."""
    unit: int | None = None
    """The unit of the store that it is in."""


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
    samples: Callable[[Iterable[int]], Iterator[LatentSample]]
    """The pictures of some of the units; nothing where there are clips."""
    clips: Callable[[Iterable[int]], Iterator[LatentClip]] | None = None
    """The clips of some of the units; None where there are pictures."""
    frames: int | None = None
    """Of all clips together, where their number is known."""
    units: Sequence[int] = (0,)
    """What several processes can share: the units of a store; a file or a stream is one."""
    missing: int = 0
    """Latents, or inputs, that belong to the store and are not in it; they are not in `count`."""
    sizes: Sequence[tuple[int, int]] = ()
    """(W, H) of all pictures, where they are known beforehand."""
    gaps: str = ""
    """What of the store is damaged or missing, in words without a full stop."""

    @property
    def space_id(self) -> str:
        """Latent space id with the state."""
        return f"{self.space}#{self.state}"


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
            f" {spec.space_id(spec.state)}. Use the model that made them, or --force."
        )


def own_latents(engine: Engine, latents: Tensor, state: str) -> Tensor:
    """Latents [N, C, h, w] in a state, as the model's decode takes them; on its device."""
    there = engine.accelerator.to_device(latents)
    return there.float() if state in NORMAL_STATES else engine.model.whiten(there)
