"""Finds how many pictures to give a model on a GPU at once."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from latentcli.images.preprocess import PreprocessSpec
from latentcli.jobs.inference.accelerator import empty_cache, is_out_of_memory
from latentcli.jobs.inference.encode_batch import encode_batch
from latentcli.jobs.inference.engine import Engine

SMALLEST, LARGEST = 4, 256
"""Batch sizes that are tried, each twice the one before; smaller ones only where these do not fit.
"""
GAIN = 1.05
"""A larger batch must be so much faster per picture, or the smaller one is taken."""
ROOM = 0.6
"""Share of the free memory that a batch may take: other shapes and other programs need some."""
TRIED_SIDE = 1024
"""Pictures at their own size are tried with this many pixels a side, and larger ones too: those go
in smaller batches, which have as many pixels together."""

Trial = Callable[[int], tuple[float, float]]
"""A batch size in, (seconds a batch, bytes of memory at its peak) out."""


def auto_batch_size(engine: Engine, preprocess: PreprocessSpec) -> int:
    """Pictures a batch: found by trying on a GPU, 8 on a CPU, where more gains nothing."""
    free = engine.accelerator.free_memory()
    if free is None:
        return engine.accelerator.batch_size
    width, height = tried_size(preprocess)
    try:
        return best_batch(lambda n: trial(engine, n, height, width), ROOM * free)
    finally:
        empty_cache()


def tried_size(preprocess: PreprocessSpec) -> tuple[int, int]:
    """(W, H) of the largest pictures that a batch of full size will have."""
    largest = preprocess.buckets.largest if preprocess.buckets is not None else (0, 0)
    width, height = preprocess.size or largest
    if 0 < width * height <= TRIED_SIDE**2:
        return width, height
    side = -(-TRIED_SIDE // preprocess.divisor) * preprocess.divisor
    return side, side


def best_batch(attempt: Trial, room: float) -> int:
    """The smallest batch size from which on more pictures at once are hardly faster.

    A size whose memory would pass `room`, judged by that of the size before, is not tried; one that
    fails ends the search. Where SMALLEST runs out of memory, smaller ones are tried.
    """
    best, pace = 1, 0.0
    size = SMALLEST
    while size <= LARGEST:
        try:
            seconds, peak = attempt(size)
        except RuntimeError as error:
            # Kernels refuse very large batches in many ways; smaller ones work all the same.
            if not pace and not is_out_of_memory(error):
                raise
            if pace or size == 1:
                break
            size //= 2
            continue
        if size / seconds < GAIN * pace:
            break
        best, pace = size, size / seconds
        if 2 * peak > room:
            break
        size *= 2
    return best


def trial(engine: Engine, count: int, height: int, width: int) -> tuple[float, float]:
    """Seconds of one batch of random pictures, and the memory that it took; the best of three."""
    pixels = torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8)
    keys = [""] * count
    state = engine.model.spec.state
    empty_cache()
    peak = engine.accelerator.watch_memory()
    times = []
    for _ in range(3):
        start = time.perf_counter()
        encode_batch(engine, pixels, keys, state)
        times.append(time.perf_counter() - start)
    return min(times), float(peak())


BATCH_PIXELS = 2**20
"""Pixels per picture, on average, that a full batch may have: larger pictures go in fewer."""


def latent_values(engine: Engine) -> int:
    """Values of the latents of a picture of BATCH_PIXELS."""
    spec = engine.model.spec
    return BATCH_PIXELS * spec.channels // spec.downscale**2


def batch_elements(batch_size: int) -> int:
    """Values that a batch of pictures may have."""
    return 3 * batch_size * BATCH_PIXELS
