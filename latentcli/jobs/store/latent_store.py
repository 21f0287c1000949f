"""Opens a latent store for reading from Python: keys, latents and rows, at random."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from latentcli.core.cached import cached
from latentcli.core.errors import StoreError, UsageError
from latentcli.core.fields import fields_of_members, is_of_fields
from latentcli.core.posterior import posterior_of
from latentcli.core.store_dtype import QUANTISED, SCALE, held
from latentcli.core.types import NORMAL_STATES
from latentcli.latents.pack import unpack
from latentcli.latents.states import Normalisation, in_state
from latentcli.shards.storage.paths import AnyPath, path_of
from latentcli.shards.store.manifest import Manifest
from latentcli.shards.store.reader import StoreReader


def open_store(path: str | AnyPath, *, check: str = "none") -> LatentStore:
    """A store's folder or URL, or one of its shards; StoreError where it is missing or damaged.

    `check` "open" compares each shard's digest with its commit record before its first use in a
    process; of a single shard that is a UsageError.
    """
    return LatentStore(path, check)


class LatentStore(StoreReader):
    """Mapping from keys to latents, read from disk where asked for; safe to send to workers.

    `len` counts the latents that are there; what is damaged or missing, `presence` tells.
    """

    def __init__(self, path: str | AnyPath, check: str = "none") -> None:
        super().__init__(path_of(path) if isinstance(path, str) else path, check)

    @property
    def state(self) -> str:
        """whitened, scaled, raw or moments."""
        return self.metadata.get("state", "whitened")

    @property
    def store_dtype(self) -> str:
        """bf16, fp16, fp8 or int8: what is on the disk; those of a scale are read as float32."""
        return self.metadata.get("store_dtype", "bf16")

    @cached
    def normalisation(self) -> Normalisation:
        """What joins the states of the store's latent space; StoreError in a single shard."""
        return normalisation_of(self.manifest, self.path)

    def in_state(self, latents: Tensor, state: str) -> Tensor:
        """Latents of this store [..., C, h, w] in another state, float32.

        Those of moments (mode or sample) are taken as raw. UsageError for a state that the store's
        space does not have, StoreError in a single shard, which does not know how to convert.
        """
        have = "raw" if self.state == "moments" else self.state
        if state == have:
            return latents.float()
        if state not in self.normalisation.states:
            raise UsageError(
                f"state is {state!r}; latents of {self.metadata.get('latent_space')} can be"
                f" {' or '.join(self.normalisation.states)}."
            )
        return in_state(latents, have, state, self.normalisation)

    def __getitem__(self, key: str) -> Tensor:
        """The latent [C, h, w] as stored, of a clip [T, C, h, w]; of moments, the mode.

        StoreError for an unknown key.
        """
        return latent_of(self.parts(key))

    def parts(self, key: str, unit: int | None = None, *, copy: bool = True) -> dict[str, Tensor]:
        """All tensors of a key: latent, or the moments; class_token; times and clock of a clip.

        Latents in int8 or fp8 are given as their values, float32; others as they are stored.
        `copy` is as that of `tensors`.
        """
        return unpack(self.tensors(key, unit, copy=copy), key)

    def part_names(self, key: str, unit: int) -> tuple[str, ...]:
        """What `parts` has of a key; StoreError where it has no tensors."""
        stored = self.names(key, unit)
        parts = (name.removesuffix(QUANTISED) for name in stored if name.endswith(QUANTISED))
        scales = {part + SCALE for part in parts}
        return tuple(name.removesuffix(QUANTISED) for name in stored if name not in scales)

    def stacked_parts(
        self, keys: Sequence[str], units: Sequence[int], parts: Mapping[str, Sequence[str]]
    ) -> dict[str, Tensor]:
        """Parts of many keys, each [N, ...], as `parts` has them: of key i, what `parts` has at i.

        No other part is read. StoreError where a key has none of its name, or where the dtypes or
        shapes of one column differ.
        """
        stored = self.names(keys[0], units[0])
        columns: dict[str, Sequence[str]] = {}
        for column, own in parts.items():
            ends = (QUANTISED, SCALE) if own[0] + QUANTISED in stored else ("",)
            for end in ends:
                columns[column + end] = [part + end for part in own] if end else own
        return held(self.stacked(keys, units, columns))

    def frames(
        self, key: str, start: int, stop: int, part: str = "latent", unit: int | None = None
    ) -> Tensor:
        """Frames `start` to `stop` of a clip's part, [n, C, h, w]; reads no more than those.

        StoreError where there is no such part.
        """
        if not super().has_part(key, part + QUANTISED, unit):
            return super().frames(key, start, stop, part, unit)
        quantised, scale = part + QUANTISED, part + SCALE
        tensors = {
            quantised: super().frames(key, start, stop, quantised, unit),
            scale: super().frames(key, start, stop, scale, unit),
        }
        return held(tensors)[part]

    def has_part(self, key: str, part: str, unit: int | None = None) -> bool:
        """Whether a key has a part of this name."""
        names = (part, part + QUANTISED)
        return any(StoreReader.has_part(self, key, name, unit) for name in names)

    def unit_fields(self, unit: int, keys: Iterable[str]) -> dict[str, dict[str, Any]]:
        """`fields` of these keys of a unit, read at once; without keys that have none."""
        recorded = self.unit_recorded_fields(unit)
        if self.has_members(unit):
            for key in keys:
                if key not in recorded:
                    recorded[key] = fields_of_members(self.others(key, is_of_fields, unit))
        return recorded

    def fields(self, key: str, unit: int | None = None) -> dict[str, Any]:
        """What belongs to a key beside its latent, `caption` first; {} where nothing does.

        The values are those of JSON. In a tar they are of its members txt, caption, json and cls.
        StoreError for an unknown key.
        """
        recorded = self.recorded_fields(key, unit)
        return recorded or fields_of_members(self.others(key, is_of_fields, unit))

    def fields_of(self, keys: Sequence[str], units: Sequence[int]) -> list[dict[str, Any]]:
        """`fields` of many keys, read together."""
        recorded = self.recorded_fields_of(keys, units)
        return [
            found or fields_of_members(self.others(key, is_of_fields, unit))
            for key, unit, found in zip(keys, units, recorded, strict=True)
        ]

    def __repr__(self) -> str:
        what = {k: self.metadata.get(k) for k in ("model", "latent_space")}
        but = "" if self.presence.is_whole else f"not complete ({self.presence.describe()}), "
        return f"LatentStore({str(self.path)!r}, {len(self)} latents, {but}{what})"


def normalisation_of(manifest: Manifest | None, path: AnyPath) -> Normalisation:
    """What joins the states of a store's latent space, as its manifest has it; else a StoreError.

    Older manifests do not say which state is the normal one: it is scaled where all channels have
    one factor, other than 1.
    """
    if manifest is None:
        raise StoreError(
            f"{path} is a single shard, which does not say how its latents are converted to another"
            " state: open its store."
        )
    try:
        mean, std = (tuple(manifest.latent["whitening"][name]) for name in ("mean", "std"))
        own = manifest.latent_space.rpartition("#")[2]
        guess = "scaled" if len(set(std)) == 1 and abs(std[0] - 1) > 0.01 else "whitened"
        state = manifest.latent.get("state", own if own in NORMAL_STATES else guess)
        return Normalisation(state, mean, std)
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(
            f"The manifest of {path} does not say how its latents are whitened or scaled ({error}),"
            " so they cannot be converted to another state."
        ) from error


def latent_of(parts: Mapping[str, Tensor]) -> Tensor:
    """The latent among the parts of a sample; of moments, the posterior's mode (float32)."""
    if "latent" in parts:
        return parts["latent"]
    return posterior_of(parts).mode()
