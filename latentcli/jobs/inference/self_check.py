"""Checks a model on a few real pictures before anything is written, to find wrong caches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from latentcli.core.errors import SelfCheckError
from latentcli.core.json_values import rounded_value
from latentcli.core.posterior import posterior_of
from latentcli.core.store_dtype import rounded
from latentcli.jobs.inference.encode_batch import encode_batch
from latentcli.jobs.inference.engine import Engine, decode_batch
from latentcli.jobs.settings.model import DecodeSettings
from latentcli.metrics.psnr import psnr

MAX_SIDE = 512
"""Larger pictures are checked by their middle: enough to tell right from wrong."""
RMS_RANGE = (0.25, 4.0)
"""RMS that the latents of a few photographs may have; it is 1 over the training set."""
MEAN_LIMIT = 1.5
"""Largest offset of all channels together, in standard deviations."""
CHANNEL_MEAN_LIMIT = 8.0
"""Largest offset of one channel; a few photographs of one scene may lie far out."""
CHANNEL_STD_LIMIT = 8.0
"""Largest standard deviation of one channel over a few photographs."""
REMEDY = "Check --model and --weights, or go on anyway with --no-self-check."


def self_check(
    engine: Engine,
    pictures: Sequence[Tensor],
    keys: Sequence[str],
    state: str | None = None,
    store_dtype: str = "bf16",
) -> dict[str, Any]:
    """Figures for the manifest; SelfCheckError where they say that the latents are wrong.

    `pictures` are uint8 [3, H, W] of any sizes. They are encoded one by one to a state (None is the
    model's own), rounded as a shard in `store_dtype` rounds them, decoded in one step and compared.
    """
    values: list[float] = []
    latents: list[Tensor] = []
    for picture, key in zip(pictures, keys, strict=True):
        pixels = middle(picture, engine.model.spec.size_divisor)[None]
        latent = stored_latent(engine, pixels, key, state or engine.model.spec.state, store_dtype)
        latents.append(latent[0].flatten(1))
        if engine.model.can_decode:
            values.append(
                psnr(pixels, decode_batch(engine, latent, [key], DecodeSettings())).item()
            )
    figures = describe(torch.cat(latents, dim=1), values, keys)
    floor = engine.info.psnr_floor
    judge(figures, floor, engine.info.name, store_dtype)
    return figures | {"psnr_floor": floor}


def stored_latent(engine: Engine, pixels: Tensor, key: str, state: str, store_dtype: str) -> Tensor:
    """The model's own latent [1, C, h, w], float32, as a store in a state and dtype gives it."""
    parts = encode_batch(engine, pixels, [key], state)
    held = {name: rounded(name, part, store_dtype).float() for name, part in parts.items()}
    if state == engine.model.spec.state:
        return held["latent"]
    raw = held["latent"] if state == "raw" else posterior_of(held).mode()
    return engine.model.whiten(raw.to(engine.device)).float().cpu()


def middle(picture: Tensor, divisor: int) -> Tensor:
    """The centre of a uint8 [3, H, W], at most MAX_SIDE a side, sides multiples of the divisor."""
    sides = [min(side, max(MAX_SIDE // divisor, 1) * divisor) for side in picture.shape[1:]]
    top, left = ((whole - side) // 2 for whole, side in zip(picture.shape[1:], sides, strict=True))
    return picture[:, top : top + sides[0], left : left + sides[1]]


def describe(latents: Tensor, psnrs: Sequence[float], keys: Sequence[str]) -> dict[str, Any]:
    """Figures of latents [C, cells] and of the PSNR of each picture."""
    finite = torch.isfinite(latents).all().item()
    shown = torch.nan_to_num(latents.double(), posinf=0.0, neginf=0.0)
    ranked = sorted(psnrs)
    return {
        "keys": list(keys),
        "finite": finite,
        "latent_rms": round(shown.square().mean().sqrt().item(), 4),
        "latent_mean": round(shown.mean().item(), 4),
        "channel_mean_max": round(shown.mean(dim=1).abs().max().item(), 4),
        "channel_std_min": round(shown.std(dim=1, correction=0).min().item(), 4),
        "channel_std_max": round(shown.std(dim=1, correction=0).max().item(), 4),
        "psnr": [rounded_value(value, 3) for value in psnrs],
        "psnr_median": finite_median(ranked),
    }


def finite_median(ranked: Sequence[float]) -> float | None:
    """Upper median of ascending values; None where there is none, or the pictures are identical."""
    return rounded_value(ranked[len(ranked) // 2], 3) if ranked else None


def judge(
    figures: dict[str, Any], floor: float | None, name: str, store_dtype: str = "bf16"
) -> None:
    """SelfCheckError in words where a figure is out of its range."""
    count = len(figures["keys"])
    first = "the first input" if count == 1 else f"the first {count} inputs"
    if not figures["finite"]:
        # Of all that latents are stored in, fp16 alone has an end that they can reach.
        or_else = ", or --store-dtype bf16" if store_dtype == "fp16" else ""
        raise SelfCheckError(
            f"Self-check: {name} gave NaN or infinite latents for {first}."
            f" The weights are damaged, or the dtype overflows: try --dtype fp32{or_else}."
        )
    rms, mean = figures["latent_rms"], figures["latent_mean"]
    if not RMS_RANGE[0] <= rms <= RMS_RANGE[1] or abs(mean) > MEAN_LIMIT:
        raise SelfCheckError(
            f"Self-check: the latents of {first} have RMS {rms:g} and mean"
            f" {mean:g}; they should be near 1 and 0. The whitening statistics, or the scaling"
            f" factor, do not belong to these weights, or the weights are not {name}'s. {REMEDY}"
        )
    worst_mean, worst_std = figures["channel_mean_max"], figures["channel_std_max"]
    if worst_mean > CHANNEL_MEAN_LIMIT or worst_std > CHANNEL_STD_LIMIT:
        raise SelfCheckError(
            f"Self-check: a channel of {name}'s latents of {first} has"
            f" mean {worst_mean:g} or standard deviation {worst_std:g}; they should be near 0 and"
            f" 1. The whitening statistics, or the scaling factor, do not belong to these weights."
            f" {REMEDY}"
        )
    median = figures["psnr_median"]
    if floor is not None and median is not None and median < floor:
        raise SelfCheckError(
            f"Self-check: {first} gave {median:.1f} dB PSNR after decoding; {name} gives"
            f" more than {floor:g} dB on any photograph. The weights or the pixel range are wrong,"
            f" or the inputs are not pictures. {REMEDY}"
        )
