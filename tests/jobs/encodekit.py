"""What the tests of the encode stream share: pictures of chosen sizes, and models that are watched.

A watched model is the real one: its batches are noted, and above a number of pictures it raises
what torch raises where a GPU's memory runs out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import tarjobkit
import torch
from torch import Tensor

from latentcli.models.diffusion_ae import DiffusionAutoencoder
from latentcli.models.linear import LinearAutoencoder

LINEAR = "linear16"
"""A model whose latent of a picture does not depend on its company."""


@dataclass
class Watched:
    """What a model was given."""

    tried: list[tuple[int, ...]] = field(default_factory=list)
    """Shapes [N, 3, H, W], those that were too much as well."""
    done: list[tuple[int, ...]] = field(default_factory=list)


def watch(monkeypatch: pytest.MonkeyPatch, most: int | None = None, error: str = "") -> Watched:
    """Notes what the models encode; more than `most` pictures at once are too much for them."""
    seen = Watched()

    def limited(encode):
        def run(self: object, images: Tensor) -> Tensor:
            seen.tried.append(tuple(images.shape))
            if most is not None and len(images) > most:
                raise RuntimeError(error) if error else torch.OutOfMemoryError("out of memory")
            seen.done.append(tuple(images.shape))
            return encode(self, images)

        return run

    for kind in (DiffusionAutoencoder, LinearAutoencoder):
        monkeypatch.setattr(kind, "encode", limited(kind.encode))
    return seen


def pictures(folder: Path, sizes: Sequence[tuple[int, int]], bad: Sequence[int] = ()) -> Path:
    """0000.png and so on, (W, H) in turn; those that are bad are cut short."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, size in enumerate(sizes):
        data = tarjobkit.picture(number, size)
        (folder / f"{number:04d}.png").write_bytes(data[: 60 if number in bad else None])
    return folder
