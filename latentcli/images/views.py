"""Makes thumbnails and difference pictures of uint8 pictures."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from latentcli.images.codec import encode_image


def thumbnail(pixels: Tensor, side: int) -> bytes:
    """A WebP of at most `side` pixels a side, of uint8 [3, H, W]; it never enlarges."""
    image = Image.fromarray(pixels.permute(1, 2, 0).contiguous().cpu().numpy())
    image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
    small = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return encode_image(small.view(image.height, image.width, 3).permute(2, 0, 1), "webp", 80)


def signed_difference(original: Tensor, other: Tensor, gain: float) -> Tensor:
    """uint8 [..., 3, H, W]: 128 + gain * (other - original), rounded and clamped to 0 to 255.

    Mid grey is no difference; a channel that came back brighter is above it.
    """
    # numpy, because many threads of a report do this at once, and torch would give each a team.
    levels = other.cpu().numpy().astype(np.float32) - original.cpu().numpy()
    shown = np.clip(np.floor(levels * np.float32(gain) + np.float32(128.5)), 0, 255)
    return torch.from_numpy(shown.astype(np.uint8))
