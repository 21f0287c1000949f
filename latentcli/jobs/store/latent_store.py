"""Opens a latent store for reading from Python: keys, latents and rows, at random."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from latentcli.core.posterior import posterior_of
from latentcli.core.types import Member, Row
from latentcli.latents.pack import unpack
from latentcli.shards.storage.paths import AnyPath, path_of
from latentcli.shards.store.manifest import Manifest
from latentcli.shards.store.reader import StoreReader


def open_store(path: str | AnyPath) -> LatentStore:
    """A store's folder or URL, or one of its shards; StoreError where it is missing or damaged."""
    return LatentStore(path)


class LatentStore:
    """Mapping from keys to latents, read from disk where asked for; safe to send to workers."""

    def __init__(self, path: str | AnyPath) -> None:
        self._reader = StoreReader(path_of(path) if isinstance(path, str) else path)

    @property
    def path(self) -> AnyPath:
        return self._reader.path

    @property
    def manifest(self) -> Manifest | None:
        """The store's description; None where a single shard was opened."""
        return self._reader.manifest

    @property
    def metadata(self) -> Mapping[str, str]:
        """The strings by which a shard describes itself: latent_space, state, model and others."""
        return self._reader.metadata

    @property
    def state(self) -> str:
        """whitened, scaled, raw or moments."""
        return self._reader.metadata.get("state", "whitened")

    def __len__(self) -> int:
        return len(self._reader)

    def __iter__(self) -> Iterator[str]:
        return self._reader.keys()

    def __contains__(self, key: object) -> bool:
        return key in self._reader

    def __getitem__(self, key: str) -> Tensor:
        """The latent [C, h, w] as stored, of a clip [T, C, h, w]; of moments, the mode.

        StoreError for an unknown key.
        """
        return latent_of(self.parts(key))

    def keys(self) -> Iterator[str]:
        """Keys that have latents, in the order of the input list."""
        return self._reader.keys()

    def parts(self, key: str) -> dict[str, Tensor]:
        """All tensors of a key: latent, or the moments; class_token; times and clock of a clip."""
        return unpack(self._reader.tensors(key), key)

    def frames(self, key: str, start: int, stop: int, part: str = "latent") -> Tensor:
        """Frames `start` to `stop` of a clip's part, [n, C, h, w]; reads no more than those."""
        return self._reader.frames(key, part, start, stop)

    def has_part(self, key: str, part: str) -> bool:
        """Whether a key has a tensor of this name."""
        return self._reader.has_part(key, part)

    def others(self, key: str) -> tuple[Member, ...]:
        """What came with a sample of a tar and was passed on, where shards are tars."""
        return self._reader.others(key)

    def row(self, key: str) -> Row:
        """What became of an input: sizes, crop, notes, or why it failed."""
        return self._reader.row(key)

    def rows(self) -> Iterator[Row]:
        """Rows of all inputs, failed ones too."""
        return self._reader.rows()

    def __repr__(self) -> str:
        what: dict[str, Any] = {k: self.metadata.get(k) for k in ("model", "latent_space")}
        return f"LatentStore({str(self.path)!r}, {len(self)} latents, {what})"


def latent_of(parts: Mapping[str, Tensor]) -> Tensor:
    """The latent among the parts of a sample; of moments, the posterior's mode (float32)."""
    if "latent" in parts:
        return parts["latent"]
    return posterior_of(parts).mode()
