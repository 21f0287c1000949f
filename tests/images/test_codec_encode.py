"""Pixels go to files and to the model's range, and come back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from harness.picture_files import scene

from latentcli.core.errors import SampleError, UsageError
from latentcli.images.codec import (
    SUFFIX_OF,
    DecodePolicy,
    decode_image,
    encode_image,
    encode_lossless,
    to_float,
    to_uint8,
)
from latentcli.images.formats import IMAGE_SUFFIXES

PIXELS = torch.from_numpy(scene()).permute(2, 0, 1)
SIGNATURES = {"png": b"\x89PNG\r\n\x1a\n", "jpeg": b"\xff\xd8\xff", "webp": b"RIFF"}


def back(data: bytes) -> torch.Tensor:
    image = decode_image(data, DecodePolicy()).image
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)


@pytest.mark.parametrize("format", SUFFIX_OF)
def test_formats_are_what_they_say_and_deterministic(format: str) -> None:
    data = encode_image(PIXELS, format)
    assert data.startswith(SIGNATURES[format])
    assert SUFFIX_OF[format] in IMAGE_SUFFIXES
    assert data == encode_image(PIXELS.clone().contiguous(), format)


@pytest.mark.parametrize(("format", "quality"), [("png", 95), ("png", 1), ("webp", 100)])
def test_lossless_encoding(format: str, quality: int) -> None:
    assert torch.equal(back(encode_image(PIXELS, format, quality)), PIXELS)


def test_lossless_is_webp_where_it_holds_the_picture() -> None:
    data, format = encode_lossless(PIXELS)
    assert format == "webp" and torch.equal(back(data), PIXELS)
    wide = PIXELS[:, :1, :1].expand(3, 1, 16_384)
    data, format = encode_lossless(wide)
    assert format == "png" and torch.equal(back(data), wide)


@pytest.mark.parametrize("format", ["jpeg", "webp"])
def test_quality_trades_size_for_error(format: str) -> None:
    files = [encode_image(PIXELS, format, quality) for quality in (20, 60, 95)]
    errors = [(back(data).float() - PIXELS.float()).abs().mean() for data in files]
    assert len(files[0]) < len(files[1]) < len(files[2])
    assert errors[0] > errors[1] > errors[2]


def test_good_jpegs_keep_full_colour_resolution() -> None:
    stripes = torch.zeros(3, 32, 32, dtype=torch.uint8)
    stripes[0, :, ::2] = 255
    stripes[2, :, 1::2] = 255
    error = [
        (back(encode_image(stripes, "jpeg", quality)).float() - stripes.float()).abs().mean()
        for quality in (89, 90)
    ]
    assert error[1] < 10 < 40 < error[0]


def test_wrong_requests() -> None:
    with pytest.raises(UsageError, match="'tiff'; allowed are png, jpeg, webp"):
        encode_image(PIXELS, "tiff")
    with pytest.raises(UsageError, match="quality is 101; allowed are 1 to 100"):
        encode_image(PIXELS, "jpeg", 101)
    with pytest.raises(ValueError, match="not uint8"):
        encode_image(PIXELS.float(), "png")
    with pytest.raises(SampleError, match="16383 pixels a side") as caught:
        encode_image(torch.zeros(3, 1, 16384, dtype=torch.uint8), "webp")
    assert caught.value.stage == "encode_image"


def test_every_level_survives_the_models_range() -> None:
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(2, 3, 16, 16)
    images = to_float(levels)
    assert images.dtype == torch.float32
    assert (images.min().item(), images.max().item()) == (-1.0, 1.0)
    assert torch.equal(to_uint8(images), levels)
    for dtype in (torch.float16, torch.float64):
        assert torch.equal(to_uint8(images.to(dtype)), levels)


def test_rounding_is_half_up_and_clamped() -> None:
    values = torch.tensor([-7.0, -1.0, 0.0, 1.0, 1.2, float("inf"), float("-inf"), float("nan")])
    assert to_uint8(values).tolist() == [0, 0, 128, 255, 255, 255, 0, 0]
    halves = (torch.arange(255) + 0.5).double() / 127.5 - 1
    below, above = (halves - 1e-4).float(), (halves + 1e-4).float()
    assert to_uint8(below).tolist() == list(range(255))
    assert to_uint8(above).tolist() == list(range(1, 256))
