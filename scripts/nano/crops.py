"""Photographs from tar files, random crops of them as patch tokens, and their PCA.

A patch token is one 16x16 patch as 768 numbers in [-1, 1], ordered channel, row, column, which is
the order of a flattened patchify kernel. Tokens are [positions, crops, 768]: positions first, so
that the depthwise mixing over positions needs only a transposition of two axes.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

Photo = npt.NDArray[np.uint8]
"""[H, W, 3]."""
PATCH = 16
PIXELS = 3 * PATCH * PATCH
SHRINK = (1.0, 0.8, 0.65, 0.5)
"""Scales at which each photograph is in the pool: shrunk ones are sharper per pixel."""


def read_photos(tars: Iterable[Path]) -> list[Photo]:
    """Every image of the tar files, in order, RGB."""
    photos = []
    for path in tars:
        with tarfile.open(path) as archive:
            for member in archive:
                if (file := archive.extractfile(member)) is not None:
                    image = Image.open(io.BytesIO(file.read()))
                    photos.append(np.asarray(image.convert("RGB")))
    return photos


def shrunk(photo: Photo, scale: float) -> Photo:
    """Lanczos-resized by `scale`."""
    height, width = photo.shape[:2]
    if scale == 1.0:
        return photo
    size = (round(width * scale), round(height * scale))
    return np.asarray(Image.fromarray(photo).resize(size, Image.Resampling.LANCZOS))


def to_tokens(images: Tensor) -> Tensor:
    """uint8 [N, H, W, 3], sides multiples of 16, to float32 tokens [h*w, N, 768]."""
    n, height, width, _ = images.shape
    h, w = height // PATCH, width // PATCH
    patches = images.view(n, h, PATCH, w, PATCH, 3).permute(1, 3, 0, 5, 2, 4)
    return patches.reshape(h * w, n, PIXELS).float() / 127.5 - 1.0


def trimmed(photo: Photo) -> Photo:
    """Cut at the right and bottom to multiples of 16."""
    return photo[: photo.shape[0] // PATCH * PATCH, : photo.shape[1] // PATCH * PATCH]


def principal_components(photos: Iterable[Photo], seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean [768], components in columns [768, 768] and standard deviations [768] of all patches.

    The patch grid of each photograph starts at a random offset, off the JPEG block grid.
    """
    rng = np.random.default_rng(seed)
    second = torch.zeros(PIXELS, PIXELS, dtype=torch.float64)
    total = torch.zeros(PIXELS, dtype=torch.float64)
    count = 0
    for photo in photos:
        top, left = rng.integers(0, PATCH, 2)
        patches = to_tokens(torch.from_numpy(trimmed(photo[top:, left:]).copy())[None])[:, 0]
        second += (patches.T @ patches).double()
        total += patches.sum(0).double()
        count += len(patches)
    mean = total / count
    variances, components = torch.linalg.eigh(second / count - torch.outer(mean, mean))
    deviations = variances.flip(0).clamp_min(0.0).sqrt()
    return mean.float(), components.flip(1).float(), deviations.float()


class CropPool:
    """Random square crops of photographs at several scales, flipped and transposed at random."""

    def __init__(self, photos: Iterable[Photo], side: int, seed: int) -> None:
        self.photos = [
            small
            for photo in photos
            for scale in SHRINK
            if min((small := shrunk(photo, scale)).shape[:2]) >= side
        ]
        # By the root of the area: a compromise of equal photographs and equal pixels.
        weights = np.sqrt([photo.shape[0] * photo.shape[1] for photo in self.photos])
        self.weights = weights / weights.sum()
        self.side = side
        self.rng = np.random.default_rng(seed)

    def batch(self, count: int) -> Tensor:
        """`count` crops as tokens [positions, count, 768]."""
        crops = np.empty((count, self.side, self.side, 3), np.uint8)
        for row, index in enumerate(self.rng.choice(len(self.photos), count, p=self.weights)):
            photo = self.photos[index]
            top = self.rng.integers(0, photo.shape[0] - self.side + 1)
            left = self.rng.integers(0, photo.shape[1] - self.side + 1)
            crop = photo[top : top + self.side, left : left + self.side]
            crop = np.rot90(crop, int(self.rng.integers(0, 4)))
            crops[row] = crop[::-1] if self.rng.integers(0, 2) else crop
        return to_tokens(torch.from_numpy(crops))
