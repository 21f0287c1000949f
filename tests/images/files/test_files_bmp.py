"""BMP files are read with the profile that their header holds."""

from __future__ import annotations

import numpy as np
import pytest
from harness.boxed_files import bmp_with_header
from harness.picture_files import SRGB_D50, rgb_profile, save, scene
from PIL import Image

from latentcli.images.codec import DecodePolicy, decode_image

PICTURE = Image.fromarray(scene())
SWAPPED = rgb_profile(SRGB_D50[:, [2, 1, 0]], "Swapped")


def test_a_profile_in_the_header_is_applied() -> None:
    decoded = decode_image(bmp_with_header(PICTURE, b"DEBM", SWAPPED), DecodePolicy())
    expected = decode_image(save(PICTURE, "PNG", icc_profile=SWAPPED), DecodePolicy())
    assert np.array_equal(np.asarray(decoded.image), np.asarray(expected.image))
    assert decoded.notes == ("colour profile Swapped to sRGB",)


@pytest.mark.parametrize(
    ("space", "notes"),
    [
        (b"BGRs", ()),
        (b" niW", ()),
        (bytes(4), ()),
        (b"KNIL", ("colour profile ignored: it is in another file",)),
    ],
)
def test_other_spaces_are_srgb(space: bytes, notes: tuple[str, ...]) -> None:
    decoded = decode_image(bmp_with_header(PICTURE, space), DecodePolicy())
    assert np.array_equal(np.asarray(decoded.image), scene())
    assert decoded.notes == notes


def test_primaries_in_the_header_are_told_to_be_ignored() -> None:
    data = bytearray(bmp_with_header(PICTURE, bytes(4)))
    data[14 + 60 : 14 + 64] = b"\x00\x00\x00\x28"
    assert decode_image(bytes(data), DecodePolicy()).notes == (
        "primaries of the BMP header ignored",
    )
