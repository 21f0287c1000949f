"""Opens a latent store for reading from Python: keys, latents and rows, at random."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from latentcli.core.fields import fields_of_members, is_of_fields
from latentcli.core.posterior import posterior_of
from latentcli.latents.pack import unpack
from latentcli.shards.storage.paths import AnyPath, path_of
from latentcli.shards.store.reader import StoreReader


def open_store(path: str | AnyPath) -> LatentStore:
    """A store's folder or URL, or one of its shards; StoreError where it is missing or damaged."""
    return LatentStore(path)


class LatentStore(StoreReader):
    """Mapping from keys to latents, read from disk where asked for; safe to send to workers."""

    def __init__(self, path: str | AnyPath) -> None:
        super().__init__(path_of(path) if isinstance(path, str) else path)

    @property
    def state(self) -> str:
        """whitened, scaled, raw or moments."""
        return self.metadata.get("state", "whitened")

    def __getitem__(self, key: str) -> Tensor:
        """The latent [C, h, w] as stored, of a clip [T, C, h, w]; of moments, the mode.

        StoreError for an unknown key.
        """
        return latent_of(self.parts(key))

    def parts(self, key: str) -> dict[str, Tensor]:
        """All tensors of a key: latent, or the moments; class_token; times and clock of a clip."""
        return unpack(self.tensors(key), key)

    def fields(self, key: str) -> dict[str, Any]:
        """What belongs to a key beside its latent, `caption` first; {} where nothing does.

        The values are those of JSON. In a tar they are of its members txt, caption, json and cls.
        StoreError for an unknown key.
        """
        return self.recorded_fields(key) or fields_of_members(self.others(key, is_of_fields))

    def __repr__(self) -> str:
        what = {k: self.metadata.get(k) for k in ("model", "latent_space")}
        return f"LatentStore({str(self.path)!r}, {len(self)} latents, {what})"


def latent_of(parts: Mapping[str, Tensor]) -> Tensor:
    """The latent among the parts of a sample; of moments, the posterior's mode (float32)."""
    if "latent" in parts:
        return parts["latent"]
    return posterior_of(parts).mode()
