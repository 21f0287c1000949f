"""Draws some of a store's latents in colours, all by one basis, as small PNG files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from latentcli.images.codec import encode_image
from latentcli.jobs.store.damaged_reader import ReadableStore, spread
from latentcli.latents.pca import ChannelMoments, PcaBasis, colours, fit

FITTED = 64
"""Samples that the basis is of, beside those that are shown."""
SIDE = 128
"""Pixels that a picture's longer side has about; a latent cell is a whole number of them."""


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """One latent in colours."""

    key: str
    png: bytes
    size: tuple[int, int]
    """(W, H) in pixels."""


def thumbnails(store: ReadableStore, count: int) -> tuple[Sequence[Thumbnail], float]:
    """Pictures of samples evenly over a store, and how much of the variance their colours show.

    Of a clip the middle frame is drawn. Call it after `store.units`. What is damaged is passed by.
    """
    total = store.samples
    if not count or not total:
        return [], 0.0
    shown = spread(count, total)
    kept: dict[int, tuple[str, Tensor]] = {}
    moments: ChannelMoments | None = None
    for index, row, latents in store.latents(sorted({*shown, *spread(FITTED, total)})):
        middle = latents[len(latents) // 2]
        channels = len(middle)
        if moments is None:
            moments = ChannelMoments()
        elif moments.count and len(moments.mean) != channels:
            continue
        values = middle.reshape(channels, -1)
        values = values[:, values.isfinite().all(0)]
        if values.numel():
            moments.add(values[None, :, :, None])
        if index in shown:
            kept[index] = row.key, middle
    if moments is None or not moments.count:
        return [], 0.0
    basis = fit(moments)
    return [draw(key, latent, basis) for key, latent in kept.values()], basis.explained


def draw(key: str, latent: Tensor, basis: PcaBasis) -> Thumbnail:
    """A latent [C, h, w]; values that are not finite are shown as the mean."""
    mean = torch.from_numpy(basis.mean).to(latent.dtype)[:, None, None]
    whole = torch.where(latent.isfinite(), latent, mean)
    small = colours(whole[None], basis)[0]
    times = max(1, SIDE // max(small.shape[1:]))
    large = small.repeat_interleave(times, 1).repeat_interleave(times, 2)
    return Thumbnail(key, encode_image(large, "png"), (large.shape[2], large.shape[1]))
