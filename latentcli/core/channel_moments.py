"""Measures each channel of single latents in float64: its mean, and how far values lie from it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array = npt.NDArray[np.float64]


def channel_moments(latents: Tensor) -> tuple[Tensor, Tensor]:
    """(mean, sum of squared deviations from it) of each channel, float64 [N, C], on the device of
    the latents [N, C, h, w].

    The order of a sum depends on the device and on h x w alone, so a latent has the same moments
    in every batch. What is not finite gives moments that are not.
    """
    values = latents.detach().flatten(2)
    if values.device.type != "cpu":
        return _by_halves(values.double())
    means, sums = np.empty((2, *values.shape[:2]))
    with np.errstate(invalid="ignore", over="ignore"):
        for i, (mean, centred) in enumerate(centred_samples(values)):
            means[i], sums[i] = mean, squares(centred)
    return torch.from_numpy(means), torch.from_numpy(sums)


def centred_samples(latents: Tensor) -> Iterator[tuple[Array, Array]]:
    """Of each of the latents [N, C, ...], of any dtype and device: the mean of its channels [C],
    and its values less that mean [C, n], which are good until the next latent is asked for.
    """
    batch = latents.detach().flatten(2).cpu()
    if batch.dtype == torch.float64:
        batch = batch.float()
    # Memory that was used before is quicker than new memory by far.
    values = torch.empty(batch.shape[1:], dtype=torch.float64)
    centred = values.numpy()
    # One sample at a time: the order of a sum must not depend on how many came together.
    for sample in batch:
        values.copy_(sample)
        mean = centred.mean(axis=1)
        centred -= mean[:, None]
        yield mean, centred


def squares(centred: Array) -> Array:
    """The sum of the squares of each channel, [C], of values [C, n]."""
    return np.einsum("cp,cp->c", centred, centred)  # type: ignore[no-any-return]


def _by_halves(values: Tensor) -> tuple[Tensor, Tensor]:
    mean = _added(values) / values.shape[-1]
    return mean, _added((values - mean[..., None]).square())


def _added(values: Tensor) -> Tensor:
    """Sums the last axis by adding its second half to its first, again and again.

    torch's own sum takes another order for another number of rows.
    """
    while (count := values.shape[-1]) > 1:
        half = count // 2
        added = values[..., :half] + values[..., half : 2 * half]
        values = torch.cat([added, values[..., 2 * half :]], -1) if count % 2 else added
    return values[..., 0]
