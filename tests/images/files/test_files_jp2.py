"""JPEG 2000 files are read with the colours that their boxes tell, or say why not."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from harness.boxed_files import enumerated, with_colour_box
from harness.colours import P3_TO_SRGB, PROPHOTO_TO_SRGB, in_srgb, srgb_linear
from harness.picture_files import P3_D50, SRGB_D50, grey_profile, rgb_profile, save, scene
from PIL import Image

from latentcli.core.errors import SampleError
from latentcli.images.codec import DecodedImage, DecodePolicy, decode_image

PICTURE = save(Image.fromarray(scene()), "JPEG2000")
SWAPPED = rgb_profile(SRGB_D50[:, [2, 1, 0]], "Swapped")
RESTRICTED, ANY, VENDOR, CICP = b"\x02\x00\x00", b"\x03\x00\x00", b"\x04\x00\x00", b"\x05\x00\x00"


def decode(data: bytes) -> DecodedImage:
    return decode_image(data, DecodePolicy())


def reason(data: bytes) -> str:
    with pytest.raises(SampleError) as caught:
        decode(data)
    return caught.value.reason


@pytest.mark.parametrize("method", [RESTRICTED, ANY], ids=["restricted", "any"])
def test_a_profile_is_applied_as_in_png(method: bytes) -> None:
    decoded = decode(with_colour_box(PICTURE, method + SWAPPED))
    expected = decode(save(Image.fromarray(scene()), "PNG", icc_profile=SWAPPED))
    assert np.array_equal(np.asarray(decoded.image), np.asarray(expected.image))
    assert decoded.notes == expected.notes == ("colour profile Swapped to sRGB",)


def test_a_grey_profile() -> None:
    grey = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    data = with_colour_box(save(grey, "JPEG2000"), RESTRICTED + grey_profile(1.0, "Linear Grey"))
    expected = in_srgb(np.arange(256).reshape(16, 16, 1).repeat(3, axis=2) / 255)
    assert np.abs(np.asarray(decode(data).image) - expected).max() <= 1


@pytest.mark.parametrize("codes", [(1, 13), (2, 2)])
def test_srgb_by_number_changes_nothing(codes: tuple[int, int]) -> None:
    by_cicp = with_colour_box(PICTURE, CICP + struct.pack(">HHHB", *codes, 0, 128))
    for data in (PICTURE, by_cicp, with_colour_box(PICTURE, enumerated(16))):
        decoded = decode(data)
        assert np.array_equal(np.asarray(decoded.image), scene())
        assert decoded.notes == ()


def test_display_p3_by_number() -> None:
    decoded = decode(with_colour_box(PICTURE, CICP + struct.pack(">HHHB", 12, 13, 0, 128)))
    expected = in_srgb(srgb_linear(scene() / 255), P3_TO_SRGB)
    assert np.abs(np.asarray(decoded.image) - expected).max() < 1
    hdr = with_colour_box(PICTURE, CICP + struct.pack(">HHHB", 9, 16, 0, 128))
    assert "PQ (HDR)" in reason(hdr)


def test_romm_rgb_is_prophoto() -> None:
    decoded = decode(with_colour_box(PICTURE, enumerated(21)))
    v = scene() / 255
    linear = np.where(v < 16 / 512, v / 16, v**1.8)
    assert np.abs(np.asarray(decoded.image) - in_srgb(linear, PROPHOTO_TO_SRGB)).max() < 2
    assert decoded.notes == ("colours of ProPhoto to sRGB",)


def test_sycc_is_undone() -> None:
    data = save(Image.fromarray(scene()).convert("YCbCr"), "JPEG2000")
    assert b"\x01\x00\x00\x00\x00\x00\x12" in data
    assert np.abs(np.asarray(decode(data).image).astype(int) - scene()).max() <= 3


def test_grey_alpha_and_ink() -> None:
    grey = Image.fromarray(scene()[..., 0])
    assert np.array_equal(np.asarray(decode(save(grey, "JPEG2000")).image)[..., 1], scene()[..., 0])
    seen = Image.fromarray(scene()).convert("RGBA")
    seen.putalpha(Image.new("L", seen.size, 0))
    assert (np.asarray(decode(save(seen, "JPEG2000")).image) == 255).all()
    inks = Image.fromarray(scene()).convert("CMYK")
    decoded = decode(save(inks, "JPEG2000"))
    assert np.abs(np.asarray(decoded.image).astype(int) - scene()).max() <= 1
    assert decoded.notes == ("CMYK to RGB without a profile",)


def test_16_bit_grey() -> None:
    wide = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    decoded = decode(save(Image.fromarray(wide), "JPEG2000"))
    assert np.abs(np.asarray(decoded.image)[..., 0] - wide * (255 / 65535)).max() < 0.51


@pytest.mark.parametrize(
    ("code", "name"),
    [(3, "YCbCr(2)"), (14, "CIELab"), (20, "e-sRGB"), (24, "e-sYCC"), (99, "of code 99")],
)
def test_other_spaces_by_number_are_refused_by_name(code: int, name: str) -> None:
    text = reason(with_colour_box(PICTURE, enumerated(code)))
    assert f"the colours {name}, which are not supported; convert it to sRGB" in text


def test_what_no_reader_knows_is_refused() -> None:
    assert "by a method that is not supported (4)" in reason(
        with_colour_box(PICTURE, VENDOR + b"x" * 20)
    )
    assert "states no colours" in reason(with_colour_box(PICTURE))


def test_the_first_box_that_is_known_counts() -> None:
    several = with_colour_box(PICTURE, VENDOR + b"x" * 20, RESTRICTED + SWAPPED, enumerated(16))
    assert decode(several).notes == ("colour profile Swapped to sRGB",)


def test_a_codestream_without_boxes_is_srgb() -> None:
    bare = PICTURE[PICTURE.index(b"jp2c") + 4 :]
    assert np.array_equal(np.asarray(decode(bare).image), scene())


def test_a_broken_profile_is_told() -> None:
    data = with_colour_box(PICTURE, RESTRICTED + rgb_profile(P3_D50, "Display P3")[:200])
    assert decode(data).notes == ("colour profile ignored: it is broken",)
