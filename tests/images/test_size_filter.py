"""Sizes that are refused before a picture is decoded, and such as are just not."""

from __future__ import annotations

import io
import pickle

import numpy as np
import pytest
from PIL import Image

from latentcli.core.errors import Filtered, SampleError
from latentcli.images.codec import DecodePolicy, decode_image
from latentcli.images.size_filter import NO_FILTER, SizeFilter


@pytest.mark.parametrize(
    ("size", "limits", "reason"),
    [
        ((64, 63), SizeFilter(min_side=64), "its short side is below 64 pixels (--min-side)"),
        ((63, 64), SizeFilter(min_side=64), "its short side is below 64 pixels (--min-side)"),
        ((64, 64), SizeFilter(min_side=64), None),
        (
            (999, 1000),
            SizeFilter(min_megapixels=1.0),
            "it has fewer than 1,000,000 pixels (--min-megapixels)",
        ),
        ((1000, 1000), SizeFilter(min_megapixels=1.0), None),
        ((700, 700), SizeFilter(min_megapixels=0.49), None),
        (
            (201, 100),
            SizeFilter(max_aspect=2.0),
            "its long side is more than 2 times the short one (--max-aspect)",
        ),
        (
            (100, 201),
            SizeFilter(max_aspect=2.0),
            "its long side is more than 2 times the short one (--max-aspect)",
        ),
        ((200, 100), SizeFilter(max_aspect=2.0), None),
        ((1, 5000), NO_FILTER, None),
        ((8, 80), SizeFilter(16, 1.0, 2.0), "its short side is below 16 pixels (--min-side)"),
    ],
)
def test_limits(size, limits, reason):
    if reason is None:
        limits.check(size)
        return
    with pytest.raises(Filtered) as caught:
        limits.check(size)
    assert (caught.value.stage, caught.value.reason) == ("filter", reason)


def jpeg(width: int, height: int, orientation: int = 1) -> bytes:
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    image = Image.fromarray(noise)
    image.save(file, "JPEG", exif=exif)
    return file.getvalue()


def test_no_pixel_of_a_refused_picture_is_decoded():
    """A file that ends behind its header is refused all the same."""
    policy = DecodePolicy(sizes=SizeFilter(min_side=64))
    data = jpeg(100, 50)
    with pytest.raises(Filtered):
        decode_image(data[: len(data) // 2], policy)
    with pytest.raises(SampleError, match="cut short"):
        decode_image(data[: len(data) // 2], DecodePolicy())
    assert decode_image(jpeg(100, 64), policy).original_size == (100, 64)


def test_a_turned_picture_is_judged_as_it_is_seen():
    policy = DecodePolicy(sizes=SizeFilter(min_side=64, max_aspect=1.6))
    assert decode_image(jpeg(100, 64, orientation=6), policy).original_size == (64, 100)
    with pytest.raises(Filtered):
        decode_image(jpeg(110, 64, orientation=6), policy)


def test_too_many_pixels_are_a_failure_whatever_the_filter():
    policy = DecodePolicy(max_pixels=100, sizes=SizeFilter(min_side=64))
    with pytest.raises(SampleError) as caught:
        decode_image(jpeg(20, 20), policy)
    assert not isinstance(caught.value, Filtered)


def test_the_error_travels_between_processes():
    error = pickle.loads(pickle.dumps(Filtered("why")))
    assert isinstance(error, Filtered) and (error.stage, error.reason) == ("filter", "why")
