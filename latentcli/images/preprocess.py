"""Resizes and crops an upright RGB picture to uint8 [3, H, W] of a size that the model takes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from latentcli.core.errors import SampleError, UsageError
from latentcli.images.bucket_rules.rule import Size, covering_size
from latentcli.images.buckets import Buckets, check_size, check_step
from latentcli.images.reduction import factor_of, largest_factor
from latentcli.images.rgb import Rgb, Values, image_of, size_of, values_of

_IN_TORCH = ("lanczos", "bicubic", "bilinear")
FILTERS = {name: Image.Resampling[name.upper()] for name in (*_IN_TORCH, "box")}
"""Resampling filters; all of them antialias when they make a picture smaller."""

# Above this many resized pixels per kept one, resizing the whole picture is waste, or worse.
_MOST_WASTE = 3


@dataclass(frozen=True, slots=True)
class PreprocessSpec:
    """How every picture of a job is brought to size."""

    size: tuple[int, int] | None
    """(W, H) in pixels, or None: buckets, or no resize and a centre crop to whole cells."""
    divisor: int
    """Width and height must be multiples of this."""
    filter: str = "lanczos"
    """A key of FILTERS."""
    buckets: Buckets | None = None
    """Where each picture's size comes from, if not from `size`."""
    reducing_gaps: tuple[float, ...] | None = None
    """A JPEG file is halved once, twice or three times by its decoder where at least so many pixels
    then remain for each one of a resized side; None: never."""

    def __post_init__(self) -> None:
        if self.divisor < 1:
            raise ValueError(f"size divisor is {self.divisor}, it must be at least 1")
        if self.filter not in FILTERS:
            raise UsageError(f"filter is {self.filter!r}; allowed are {', '.join(FILTERS)}")
        if self.reducing_gaps is not None and min(self.reducing_gaps, default=1) < 1:
            raise ValueError(f"reducing gaps are {self.reducing_gaps}, they must be at least 1")
        if self.size is not None and self.buckets is not None:
            raise ValueError("pictures get one size or buckets, not both")
        if self.size is not None:
            check_size(self.size, self.divisor)
        if self.buckets is not None:
            check_step(self.buckets.step, self.divisor)


@dataclass(frozen=True, slots=True)
class PreparedPixels:
    """Pixels ready for a batch, and how they were cut from the picture."""

    pixels: Tensor
    """uint8 [3, H, W], sRGB, contiguous."""
    resized_size: tuple[int, int]
    """(W, H) after resize, before crop."""
    crop: tuple[int, int, int, int]
    """(left, top, right, bottom) in pixels of the resized picture."""


def preprocess(picture: Rgb, spec: PreprocessSpec, original: Size | None = None) -> PreparedPixels:
    """Resize and centre-crop a picture; SampleError where it is smaller than one cell.

    With a size, the picture is scaled so that it just covers the target: one side matches exactly,
    the other is rounded to the nearest pixel. Crop offsets are half of what is over, rounded down.
    With buckets, the target is the picture's bucket, and the bucket rule does the rounding.
    `original` is the (W, H) that a reduced picture had.
    """
    size = size_of(picture)
    resized, crop = geometry(original or size, spec)
    if resized != size:
        extent = _extent(size, original) if original else size
        return PreparedPixels(_resize_crop(picture, extent, resized, crop, spec), resized, crop)
    left, top, right, bottom = crop
    pixels = _to_tensor(np.asarray(picture)[top:bottom, left:right])
    return PreparedPixels(pixels, resized, crop)


def resizes_alike(size: Size, spec: PreprocessSpec) -> bool:
    """Whether `resize_crop` brings a picture of (W, H) to size as `preprocess` does, all at once.

    Not where another filter is wanted, or only a small part of the resized picture is kept.
    SampleError as `geometry`.
    """
    return _in_torch(spec.filter) and not _is_waste(*geometry(size, spec))


def reduction(size: Size, spec: PreprocessSpec) -> int:
    """By what a picture of upright (W, H) may be divided before `preprocess`: 8, 4, 2 or 1."""
    if spec.reducing_gaps is None:
        return 1
    try:
        resized, _ = geometry(size, spec)
    except SampleError:
        return 1
    return largest_factor(size, resized, spec.reducing_gaps)


def geometry(size: Size, spec: PreprocessSpec) -> tuple[Size, tuple[int, int, int, int]]:
    """(W, H) after resize, and (left, top, right, bottom) of the crop, of a picture of `size`.

    SampleError as `preprocess`. Every rule, and the trainers that they are of, crops the centre,
    and leaves the odd pixel on the right and at the bottom.
    """
    resized, target = _sizes(size, spec)
    return resized, _centre(resized, target)


def _sizes(size: Size, spec: PreprocessSpec) -> tuple[Size, Size]:
    """(W, H) of the resized picture and of what is cropped from it."""
    if spec.buckets is not None:
        target = spec.buckets.pick(size)
        return spec.buckets.resized(size, target), target
    if spec.size is not None:
        return covering_size(size, spec.size), spec.size
    return size, _whole_cells(size, spec.divisor)


def _whole_cells(size: tuple[int, int], divisor: int) -> tuple[int, int]:
    if min(size) < divisor:
        raise SampleError(
            "preprocess",
            f"picture is {size[0]}x{size[1]}; without resize both sides must be at least"
            f" {divisor} pixels (--size enlarges)",
        )
    return size[0] // divisor * divisor, size[1] // divisor * divisor


def _centre(size: tuple[int, int], target: tuple[int, int]) -> tuple[int, int, int, int]:
    left, top = (size[0] - target[0]) // 2, (size[1] - target[1]) // 2
    return left, top, left + target[0], top + target[1]


def _extent(size: Size, original: Size) -> tuple[float, float]:
    """How many of its pixels, across and down, a reduced picture has to the edge of the whole."""
    factor = factor_of(size, original)
    return original[0] / factor, original[1] / factor


def _is_waste(resized: Size, crop: tuple[int, int, int, int]) -> bool:
    left, top, right, bottom = crop
    return resized[0] * resized[1] > _MOST_WASTE * (right - left) * (bottom - top)


def _resize_crop(
    picture: Rgb,
    extent: tuple[float, float],
    resized: Size,
    crop: tuple[int, int, int, int],
    spec: PreprocessSpec,
) -> Tensor:
    """The crop of the resized picture, uint8 [3, H, W]."""
    left, top, right, bottom = crop
    if _is_waste(resized, crop) or not _in_torch(spec.filter):
        return _resize_crop_by_pillow(picture, extent, resized, crop, FILTERS[spec.filter])
    # Torch resizes 8-bit pictures in vector instructions: a fifth of Pillow's time, within two
    # levels of its result.
    whole = torch.from_numpy(values_of(picture)).permute(2, 0, 1)[None]
    pixels = _resized_by_torch(whole, extent, resized, spec.filter)[0]
    return pixels[:, top:bottom, left:right].contiguous()


def _resized_by_torch(
    whole: Tensor, extent: tuple[float, float], resized: Size, filter: str
) -> Tensor:
    """uint8 [1, 3, H, W] to the resized size."""
    width, height = resized
    if extent == (whole.shape[3], whole.shape[2]):
        return F.interpolate(whole, size=(height, width), mode=filter, antialias=True)
    # What interpolate calls; it would not pass on both the size and scales that say more.
    resize = getattr(torch.ops.aten, f"_upsample_{filter}2d_aa")
    scales = height / extent[1], width / extent[0]
    result: Tensor = resize(whole, [height, width], False, *scales)
    return result


def resizer(filter: str) -> str:
    """torch or pillow: which of them resizes by this filter, with this build of torch."""
    return "torch" if _in_torch(filter) else "pillow"


@cache
def _in_torch(filter: str) -> bool:
    """Whether this build of torch has the filter for 8-bit pictures on the CPU."""
    if filter not in _IN_TORCH:
        return False
    try:
        probe = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
        F.interpolate(probe, size=(2, 2), mode=filter, antialias=True)
    except (NotImplementedError, RuntimeError, ValueError):
        return False
    return True


def _resize_crop_by_pillow(
    picture: Rgb,
    extent: tuple[float, float],
    resized: Size,
    crop: tuple[int, int, int, int],
    resample: Image.Resampling,
) -> Tensor:
    # Only the part that the crop keeps is computed, which bounds the memory for a very long
    # picture. Pillow clips its filters at the picture's edge, not at the box's, so this is resize,
    # then crop, up to the rounding of the box to float32.
    (w, h), (rw, rh), (left, top, right, bottom) = extent, resized, crop
    box = (left * w / rw, top * h / rh, right * w / rw, bottom * h / rh)
    image = image_of(picture).resize((right - left, bottom - top), resample, box=box)
    return _to_tensor(np.asarray(image))


def _to_tensor(values: Values) -> Tensor:
    """[H, W, 3] as [3, H, W], contiguous and in memory of its own."""
    return torch.from_numpy(np.array(values.transpose(2, 0, 1), order="C"))
