"""Takes the latents of pictures from another tool's cache, in place of encoding the pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import PurePosixPath

import torch
from torch import Tensor

from latentcli.core.errors import SampleError, UsageError
from latentcli.core.types import NORMAL_STATES
from latentcli.jobs.inference.engine import Engine
from latentcli.jobs.runtime.model_cards import decoders_of
from latentcli.shards.storage.paths import path_of
from latentcli.shards.tensors.foreign.folder import ForeignFolder, open_foreign_set
from latentcli.shards.tensors.foreign.latents import described_latents


class CachedLatents:
    """The latents of a cache, by the keys of the pictures that they were made from.

    A picture is looked up by its path without the suffix, also with the digest of its name, as
    SimpleTuner has it. By its name alone it is looked up in a cache without folders, and where its
    own path has none and the name is found once. Where a picture has several latents, as of several
    resolutions, the one of its size is taken.
    """

    def __init__(self, folder: ForeignFolder) -> None:
        self.folder = folder
        self._files: dict[str, list[int]] = {}
        self._places: dict[str, set[str]] = {}
        """By the name alone, the paths that end in it."""
        for index, name in enumerate(folder.names):
            own = folder.kind.stem(PurePosixPath(name).name)
            for key in {folder.stems[index], folder.stem_of(name, own)}:
                self._files.setdefault(key, []).append(index)
            self._places.setdefault(own, set()).add(folder.stem_of(name, own))
        self._waiting: dict[str, Tensor] = {}

    def take(self, key: str, size: tuple[int, int], engine: Engine) -> None:
        """Reads the latent of a picture of (H, W) pixels, and keeps it until `of` gives it out.

        SampleError where there is none, or none of this size.
        """
        f = engine.model.spec.downscale
        wanted = (engine.model.spec.channels, size[0] // f, size[1] // f)
        found: list[tuple[int, ...]] = []
        for index in self._indices(key):
            for latent in self.folder.latents([index]):
                values = latent.load()
                if tuple(values.shape) == wanted:
                    if not bool(values.isfinite().all()):
                        raise SampleError(
                            "read", "the cached latent has values that are not finite"
                        )
                    self._waiting[key] = values.float()
                    return
                found.append(tuple(values.shape))
        if not found:
            raise SampleError("read", f"{self.folder.path} has no latent of this picture")
        raise SampleError(
            "read",
            f"the picture is resized to {size[1]}x{size[0]}, which gives a latent of"
            f" {list(wanted)}; the cached one is {list(found[0])}. Give the size options that the"
            " cache was made with, such as --bucket-rule",
        )

    def of(self, keys: Sequence[str], engine: Engine) -> Tensor:
        """The latents [N, C, h, w] of pictures that were taken, as the model decodes them."""
        latents = torch.stack([self._waiting[key] for key in keys])
        latents = engine.accelerator.to_device(latents)
        own = self.folder.state in NORMAL_STATES
        return latents if own else engine.model.whiten(latents)

    def drop(self, keys: Sequence[str]) -> None:
        """Lets go of the latents of pictures that are done with."""
        for key in keys:
            self._waiting.pop(key, None)

    def _indices(self, key: str) -> Sequence[int]:
        path = PurePosixPath(key)
        names = (path.name, hashlib.sha256(path.name.encode()).hexdigest())
        for name in (*(str(path.with_name(name)) for name in names), *names):
            if name in self._files:
                return self._files[name]
        for name in names if key == path.name else ():
            if len(places := self._places.get(name, set())) == 1:
                return self._files[next(iter(places))]
        return ()


def open_cached(path: str | None, engines: Sequence[Engine]) -> CachedLatents | None:
    """The cache of a job, if it has one; UsageError where it is none, or not for these models."""
    if path is None:
        return None
    folder = open_foreign_set(path_of(path), None) if path_of(path).exists() else None
    if folder is None:
        raise UsageError(
            f"--cached is {path}, which holds no latents of a trainer; name a file or folder of"
            " one."
        )
    for engine in engines:
        spec = engine.model.spec
        if folder.space not in (None, spec.space):
            raise UsageError(
                f"{path} holds {described_latents(folder.space, folder.state)}, but"
                f" {engine.info.name} decodes {spec.space_id(folder.state)}. Name a model of that"
                f" space with --model{such_as(decoders_of(folder.space))}."
            )
    return CachedLatents(folder)


def such_as(names: Sequence[str]) -> str:
    """The end of a sentence that names examples, where there are any."""
    return f": {', '.join(names)}" if names else ""
