"""Makes uint8 pictures of a size that a model takes, of files or of none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from latentcli.core.errors import UsageError
from latentcli.images.codec import DecodePolicy, decode_image
from latentcli.images.formats import IMAGE_SUFFIXES
from latentcli.images.preprocess import PreprocessSpec, preprocess

PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")
"""Of those that scikit-image brings along."""
SIDE = 256
"""Of the pictures that are used where none are given."""


@dataclass(frozen=True, slots=True)
class Photo:
    """One picture to encode."""

    name: str
    pixels: Tensor
    """uint8 [3, H, W], sides multiples of the model's size divisor."""
    is_real: bool = True
    """False for noise, which no autoencoder gives back."""


def given_photos(paths: Sequence[Path], divisor: int) -> list[Photo]:
    """The files, and the pictures that folders hold, cut but not resized.

    UsageError where a path is none or there are no pictures, SampleError for a damaged file.
    """
    files: list[Path] = []
    for path in paths:
        if not path.exists():
            raise UsageError(f"There is no picture or folder {path}.")
        files += [path] if path.is_file() else sorted(filter(_is_picture, path.iterdir()))
    if not files:
        raise UsageError(f"There are no pictures in {', '.join(map(str, paths))}.")
    return [_photo(path, PreprocessSpec(None, divisor)) for path in files]


def default_photos(divisor: int) -> list[Photo]:
    """Photographs of scikit-image where it is installed, else noise; about 256x256."""
    side = max(1, SIDE // divisor) * divisor
    found = find_spec("skimage")
    folder = Path(found.origin).parent / "data" if found and found.origin else None
    files = [folder / name for name in PHOTOGRAPHS if (folder / name).is_file()] if folder else []
    if files:
        return [_photo(path, PreprocessSpec((side, side), divisor)) for path in files]
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (3, side, side), generator=generator).to(torch.uint8)
    return [Photo("noise", noise, is_real=False)]


def _photo(path: Path, spec: PreprocessSpec) -> Photo:
    image = decode_image(path.read_bytes(), DecodePolicy()).image
    return Photo(path.name, preprocess(image, spec).pixels)


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES
