"""Decodes a batch of latents, in as few pieces as the device's memory allows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from latentcli.core.errors import SampleError
from latentcli.jobs.decode.latents import own_latents
from latentcli.jobs.decode.output import DecodeRun
from latentcli.jobs.inference.engine import decode_batch
from latentcli.jobs.inference.split_on_oom import Parts, too_large


def decode_fitting(
    run: DecodeRun, latents: Tensor, keys: Sequence[str], *, frames: bool = False
) -> Tensor:
    """Latents [N, C, h, w] as they are stored to uint8 pictures [N, 3, H, W] on the CPU.

    With `frames` they are consecutive frames of one clip, which a temporal decoder gets whole:
    fewer at once would be other pictures. SampleError where the device has no memory for them, or
    for one picture.
    """
    engine, count = run.engine, len(keys)
    height, width = (side * engine.model.spec.downscale for side in latents.shape[-2:])
    whole = frames and engine.model.is_video

    def decode(part: slice) -> Parts:
        own = own_latents(engine, latents[part], run.source.state)
        return {"pictures": decode_batch(engine, own, keys[part], run.job, frames=frames)}

    try:
        with run.meter.stage("decode", count):
            fitted = run.split_on_oom.fit(decode, (3, height, width), count, whole=whole)
    except torch.OutOfMemoryError as error:
        room = run.split_on_oom.room
        what, together = "frame" if frames else "picture", count if whole else 1
        raise SampleError("decode", too_large(what, width, height, together, room)) from error
    return fitted["pictures"]
