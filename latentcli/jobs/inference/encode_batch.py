"""Encodes batches of uint8 pictures into latents and whatever else a job stores of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from latentcli.core.store_dtype import as_stored
from latentcli.images.codec import to_float
from latentcli.jobs.inference.engine import Engine
from latentcli.jobs.inference.noise import Noise, begin_noise
from latentcli.jobs.inference.on_cores import on_cores


@dataclass(frozen=True, slots=True)
class Asked:
    """What is wanted of each picture; see `encode_on_device`."""

    state: str
    sample: int | None = None
    class_token: bool = False
    flip: bool = False
    store_dtype: str | None = None


def encode_batch(
    engine: Engine, pixels: Tensor, keys: Sequence[str], *asked: Any, **more: Any
) -> dict[str, Tensor]:
    """`encode_on_device`, with the parts on the CPU and ready."""
    parts = encode_on_device(engine, pixels, keys, *asked, **more)
    return {name: part.cpu() for name, part in parts.items()}


def encode_on_device(
    engine: Engine,
    pixels: Tensor,
    keys: Sequence[str],
    state: str,
    sample: int | None = None,
    *,
    class_token: bool = False,
    flip: bool = False,
    store_dtype: str | None = None,
) -> dict[str, Tensor]:
    """uint8 pictures [N, 3, H, W] to named float32 parts, each [N, ...], on the engine's device.

    `state` is the model's own (whitened or scaled), raw or moments; the parts are latent, or the
    posterior's moments, and class_token where asked for; with `flip` also `<part>_flip`, those of
    the mirrored pictures. `sample` seeds a posterior sample instead of the mode. With `store_dtype`
    they are what `as_stored` makes of them, and no memory of the device is needed after this. A GPU
    may still be at work when this returns.
    """
    images = engine.accelerator.to_device(pixels)
    asked = Asked(state, sample, class_token, flip, store_dtype)
    return (_encode if engine.accelerator.gpu else _encode_on_cores)(engine, images, keys, asked)


def _encode_on_cores(
    engine: Engine, pixels: Tensor, keys: Sequence[str], asked: Asked
) -> dict[str, Tensor]:
    """`_encode` in pieces, each on one core."""
    height, width = pixels.shape[-2:]
    pieces = on_cores(
        lambda part: _encode(engine, pixels[part], keys[part], asked), len(pixels), height * width
    )
    if len(pieces) == 1:
        return pieces[0]
    return {name: torch.cat([part[name] for part in pieces]) for name in pieces[0]}


@torch.inference_mode()
def _encode(engine: Engine, pixels: Tensor, keys: Sequence[str], asked: Asked) -> dict[str, Tensor]:
    """The parts of pictures that are on the device, and with `flip` of the mirrored ones."""
    images = to_float(pixels)
    parts = _parts(engine, images, keys, asked)
    if asked.flip:
        names = [f"{key}/flip" for key in keys]
        mirrored = _parts(engine, images.flip(-1), names, asked)
        parts |= {f"{part}_flip": values for part, values in mirrored.items()}
    return parts if asked.store_dtype is None else as_stored(parts, asked.store_dtype)


def _parts(engine: Engine, images: Tensor, keys: Sequence[str], asked: Asked) -> dict[str, Tensor]:
    model, state, sample = engine.model, asked.state, asked.sample
    if state == model.spec.state and sample is None:
        own = engine.network.encode(images).float()
        parts = {"latent": own}
    else:
        noise = None if sample is None else noise_of(engine, images, keys, sample)
        posterior = engine.network.encode_posterior(images)
        if noise is None:
            raw = posterior.mode()
        else:
            raw = posterior.sample(engine.accelerator.to_device(noise.ready()))
        own = model.whiten(raw)
        parts = {"latent": raw if state == "raw" else own}
        if state == "moments":
            parts = posterior.moments()
    if asked.class_token:
        parts["class_token"] = model.predict_class(own).float()
    return parts


def noise_of(engine: Engine, images: Tensor, keys: Sequence[str], seed: int) -> Noise:
    """The noise that pictures [N, 3, H, W] are sampled with, in their latents' shape."""
    spec = engine.model.spec
    shape = (spec.channels, *spec.latent_size(*images.shape[-2:]))
    return begin_noise(engine.accelerator, seed, keys, shape)
