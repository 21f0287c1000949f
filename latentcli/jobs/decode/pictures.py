"""Decodes a batch of latents, in as few pieces as the device's memory allows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from latentcli.core.errors import SampleError
from latentcli.jobs.decode.decoded import Decoded
from latentcli.jobs.decode.latents import own_latents
from latentcli.jobs.decode.output import DecodeRun
from latentcli.jobs.inference.accelerator import DeviceTimer
from latentcli.jobs.inference.engine import decode_on_device
from latentcli.jobs.inference.noise import Noise, begin_noise
from latentcli.jobs.inference.split_on_oom import Parts, too_large


def noise_ahead(run: DecodeRun, keys: Sequence[str], latent: Sequence[int]) -> Noise | None:
    """The noise of pictures whose latents have the shape [..., h, w]: threads begin to draw it.

    None where the decoder takes none.
    """
    if not run.engine.model.is_diffusion:
        return None
    height, width = (side * run.engine.model.spec.downscale for side in latent[-2:])
    return begin_noise(run.engine.accelerator, run.job.seed, keys, (3, height, width))


def decode_fitting(
    run: DecodeRun,
    latents: Tensor,
    keys: Sequence[str],
    noise: Noise | None,
    *,
    frames: bool = False,
) -> Decoded:
    """Latents [N, C, h, w] as they are stored to uint8 pictures [N, 3, H, W].

    With `frames` they are consecutive frames of one clip, which a temporal decoder gets whole:
    fewer at once would be other pictures. SampleError where the device has no memory for them, or
    for one picture.
    """
    engine, count = run.engine, len(keys)
    height, width = (side * engine.model.spec.downscale for side in latents.shape[-2:])
    whole = frames and engine.model.is_video

    def decode(part: slice) -> Parts:
        own = own_latents(engine, latents[part], run.source.state)
        start = None if drawn is None else drawn[part]
        pictures = decode_on_device(engine, own, keys[part], run.job, frames=frames, noise=start)
        return {"pictures": pictures}

    # Before the timer begins: the device may be idle meanwhile.
    drawn = None if noise is None else noise.ready()
    timer = DeviceTimer(engine.accelerator)
    try:
        with timer:
            fitted = run.split_on_oom.fit(decode, (3, height, width), count, whole=whole)
            pictures = engine.accelerator.to_host(fitted["pictures"])
    except torch.OutOfMemoryError as error:
        room = run.split_on_oom.room
        what, together = "frame" if frames else "picture", count if whole else 1
        raise SampleError(
            "decode", too_large(error, what, width, height, together, room)
        ) from error
    return Decoded(keys, pictures, timer, run.meter)
