"""Computes PSNR and temporal consistency of a clip whose frames come in chunks, in order.

With e_t = reconstruction_t - original_t in 8-bit levels, temporal consistency is the mean of
|e_t - e_{t-1}| over all pixels, channels and pairs of neighbouring frames. It is the same as the
mean absolute difference between the frame differences of the two clips: 0 where an error stands
still, large where it flickers. All sums are of integers, so figures depend neither on the device
nor on how the clip was cut into chunks.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from latentcli.metrics.psnr import check_pictures, summarise


class ClipMeasure:
    """The sums of one clip; a clip needs a new one."""

    def __init__(self) -> None:
        self._errors: list[int] = []
        self._values = 0
        self._flicker = 0
        self._motion = 0
        self._last: tuple[Tensor, Tensor] | None = None

    def add(self, original: Tensor, reconstruction: Tensor) -> None:
        """The next frames: uint8 [T, 3, H, W] twice, on one device, T at least 1.

        The first frame is paired with the last of the chunk before. ValueError for other dtypes
        or shapes, or frames of another size than before.
        """
        check_pictures(original, reconstruction, "frames", "[T, 3, H, W]")
        now = original.to(torch.int16)
        error = reconstruction.to(torch.int16) - now
        if self._last is not None and self._last[0].shape[1:] != now.shape[1:]:
            before = tuple(self._last[0].shape[2:])
            raise ValueError(f"frames are {tuple(now.shape[2:])}, those before were {before}")
        self._errors += error.int().square().sum(dim=(1, 2, 3), dtype=torch.int64).tolist()
        self._values = now[0].numel()
        last_now, last_error = self._last or (now[:0], error[:0])
        self._motion += _steps(torch.cat([last_now, now]))
        self._flicker += _steps(torch.cat([last_error, error]))
        self._last = now[-1:].clone(), error[-1:].clone()

    def figures(self) -> dict[str, float | None]:
        """`psnr`, `psnr_pooled`, `temporal` and `motion`; ValueError where there was no frame.

        psnr: mean over frames of the frame's PSNR in dB, frames that are identical left out
        (infinite if all are). psnr_pooled: PSNR of the mean squared error of the whole clip.
        temporal: the consistency above, in levels. motion: mean of |original_t - original_{t-1}|
        in levels, to compare it with. The last two are None for a clip of one frame.
        """
        frames = len(self._errors)
        if not frames:
            raise ValueError("there are no frames to measure")
        each = [_decibels(error, self._values) for error in self._errors]
        pairs = (frames - 1) * self._values
        return {
            "psnr": summarise(each)["mean"],
            "psnr_pooled": _decibels(sum(self._errors), frames * self._values),
            "temporal": self._flicker / pairs if pairs else None,
            "motion": self._motion / pairs if pairs else None,
        }


def _steps(frames: Tensor) -> int:
    """Sum of the absolute differences of neighbours; int16 holds them, for levels and errors."""
    return int((frames[1:] - frames[:-1]).abs().sum(dtype=torch.int64))


def _decibels(squares: int, values: int) -> float:
    return 10 * math.log10(255**2 * values / squares) if squares else math.inf
