"""Groups the frames of a clip for an extractor, through an autoencoder or not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from latentcli.jobs.inference.batch_size import batch_elements
from latentcli.jobs.inference.encode_batch import encode_batch
from latentcli.jobs.inference.engine import Engine, decode_batch
from latentcli.jobs.loader.clip_frames import frame_key
from latentcli.jobs.settings.model import DecodeSettings


@dataclass(frozen=True, slots=True)
class Group:
    """Consecutive frames of a clip."""

    first: int
    """Number of the first one in its clip, of those taken."""
    frames: Tensor
    """uint8 [T, 3, H, W]."""


def groups_of(frames: Iterable[Tensor], length: int) -> Iterator[Group | int]:
    """Groups of `length` frames that do not overlap, then how many are left over."""
    held: list[Tensor] = []
    first = 0
    for frame in frames:
        held.append(frame)
        if len(held) == length:
            yield Group(first, torch.stack(held))
            first += length
            held = []
    yield len(held)


def resized(frames: Tensor, size: int, how: str) -> Tensor:
    """uint8 [T, 3, H, W] to float32 [3, T, size, size] in [0, 1]; `how` is a key of PREPROCESS."""
    return RESIZERS[how](frames, size).transpose(0, 1)


def _bilinear(frames: Tensor, size: int) -> Tensor:
    values = frames.float() / 255
    return F.interpolate(values, size=(size, size), mode="bilinear", align_corners=False)


def _bicubic(frames: Tensor, size: int) -> Tensor:
    pictures = [Image.fromarray(frame) for frame in frames.permute(0, 2, 3, 1).numpy()]
    small = [
        np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC)) for picture in pictures
    ]
    return torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2).float() / 255


RESIZERS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "cdfvd": _bilinear,
    "published": _bicubic,
}


def reconstructed(engine: Engine, group: Group, key: str, settings: DecodeSettings) -> Tensor:
    """A group's frames as the autoencoder gives them back: uint8 [T, 3, H, W].

    They are encoded, rounded to bfloat16 as a store would, and decoded; a temporal decoder sees
    its frames of the group at once, and none of other groups. Frames whose sides are no multiples
    of the model's size rule are continued by their edge pixels and cut again, so that the pixels
    compared are those of the clip.
    """
    frames = group.frames
    height, width = frames.shape[2:]
    divisor = engine.model.spec.size_divisor
    whole = padded(frames, -height % divisor, -width % divisor)
    keys = [frame_key(key, group.first + i) for i in range(len(frames))]
    size = engine.accelerator.batch_size
    few = max(1, min(size, batch_elements(size) // whole[0].numel()))
    latents = torch.cat([_latents(engine, whole[at], keys[at]) for at in parts(len(keys), few)])
    model = engine.model
    chunk = (settings.num_frames or model.frames_per_chunk) if model.is_video else few
    decoded = [
        decode_batch(engine, latents[at], keys[at], settings, frames=True)
        for at in parts(len(keys), chunk)
    ]
    return torch.cat(decoded)[:, :, :height, :width]


def _latents(engine: Engine, frames: Tensor, keys: Sequence[str]) -> Tensor:
    part = encode_batch(engine, frames, keys, engine.model.spec.state)["latent"]
    return part.bfloat16().float()


def parts(length: int, step: int) -> Iterator[slice]:
    """Slices of at most `step` that cover `length` items."""
    return (slice(i, i + step) for i in range(0, length, step))


def padded(frames: Tensor, down: int, right: int) -> Tensor:
    """uint8 [T, 3, H, W] with so many more rows and columns, which repeat the last ones."""
    rows = torch.cat([frames, frames[:, :, -1:].expand(-1, -1, down, -1)], dim=2)
    return torch.cat([rows, rows[..., -1:].expand(-1, -1, -1, right)], dim=3)
