"""Draws the noise of pictures, in threads where the model is not ready for it yet."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from latentcli.jobs.inference.accelerator import Accelerator
from latentcli.jobs.runtime.machine import cores

MOST_THREADS = 8
"""That draw noise."""


def sample_seed(seed: int, key: str) -> int:
    """A 32-bit seed of one sample, so that its noise depends on nothing but seed and key.

    torch's CPU generator uses no more than 32 bits of a seed.
    """
    digest = hashlib.sha256(f"{seed}:{key}".encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:4], "little")


def sample_noise(seed: int, keys: Sequence[str], shape: tuple[int, ...]) -> Tensor:
    """Standard normal float32 [len(keys), *shape] on the CPU, each item from its own stream."""
    noise = torch.empty(len(keys), *shape)
    for key, values in zip(keys, noise, strict=True):
        draw(seed, key, values)
    return noise


@torch.inference_mode()
def draw(seed: int, key: str, values: Tensor) -> None:
    """Fills a contiguous float32 tensor of the host with the noise of a key."""
    generator = torch.Generator().manual_seed(sample_seed(seed, key))
    torch.randn(values.shape, generator=generator, out=values)


@dataclass(frozen=True, slots=True)
class Noise:
    """What `sample_noise` gives of some keys, while threads are at it."""

    values: Tensor
    """[N, ...]; an item may be read once it is drawn."""
    drawn: Sequence[Future[None]]
    """By item."""

    def __getitem__(self, part: slice) -> Noise:
        """That of some of the keys."""
        return Noise(self.values[part], self.drawn[part])

    def ready(self) -> Tensor:
        """float32 [N, ...] on the host; waits until it is drawn."""
        for each in self.drawn:
            each.result()
        return self.values


def begin_noise(
    accelerator: Accelerator, seed: int, keys: Sequence[str], shape: tuple[int, ...]
) -> Noise:
    """Has threads draw the noise of some keys into memory that the device copies from by itself."""
    values = accelerator.staging((len(keys), *shape))
    pool = noise_threads()
    each = zip(keys, values, strict=True)
    return Noise(values, [pool.submit(draw, seed, key, item) for key, item in each])


@cache
def noise_threads() -> ThreadPoolExecutor:
    """The threads that draw noise."""
    return ThreadPoolExecutor(min(cores(), MOST_THREADS), thread_name_prefix="noise")
