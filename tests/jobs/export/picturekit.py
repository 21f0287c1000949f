"""Stores whose pictures are real files, in folders, with captions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from harness.made_up_stores import Made, made, noise, write_store
from PIL import Image

SIZE = {"resize": "crop", "size": [64, 64], "divisor": 8}
NAMES = ("cat", "sub/dog", "sub/deep/bird")


def picture(path: Path) -> Path:
    """A small PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 64), "teal").save(path)
    return path


def pictured(
    folder: Path,
    names: Sequence[str] = NAMES,
    space: str = "sdxl",
    *,
    suffix: str = ".png",
    captions: Mapping[str, str] | None = None,
    lacking: Sequence[str] = (),
    **more: Any,
) -> Path:
    """A store of pictures that are in `folder`/pictures; those of `lacking` have no latent."""
    downscale = 16 if space == "flux2" else 8
    samples = []
    for i, name in enumerate(sorted([*names, *lacking])):
        source = picture(folder / "pictures" / f"{name}{suffix}")
        caption = (captions or {}).get(name, f"a picture of {name}")
        channels = {"sdxl": 4, "sd1": 4, "flux1": 16, "flux2": 128}[space]
        latent = noise(channels, 64 // downscale, 64 // downscale, seed=i)
        known = {"original_size": (64, 64), "resized_size": (64, 64), "crop": (0, 0, 64, 64)}
        lost = {"status": "filtered"} if name in lacking else {}
        samples.append(
            Made(
                key=name,
                parts={"latent": latent.to(torch.bfloat16)},
                source=str(source),
                fields={"caption": caption},
                **known,
                **lost,
            )
        )
    return write_store(folder / "s.latents", samples, space, preprocess=SIZE, **more)


def tarred(folder: Path) -> Path:
    """A store of samples that were packed in a tar."""
    samples = [
        made(f"shard/{name}", noise(4, 8, 8, seed=i), source=f"/data/shard.tar::{name}.jpg")
        for i, name in enumerate(("a/one", "two"))
    ]
    return write_store(folder / "t.latents", samples, "sdxl", preprocess=SIZE, spec={"tars": True})
