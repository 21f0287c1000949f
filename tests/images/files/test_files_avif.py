"""AVIF files are read with the colours that their boxes tell by numbers."""

from __future__ import annotations

import numpy as np
import pytest
from harness.boxed_files import with_nclx
from harness.colours import BT2020_TO_SRGB, P3_TO_SRGB, in_srgb, srgb_linear
from harness.picture_files import P3_D50, rgb_profile, save, scene
from PIL import Image

from latentcli.core.errors import SampleError
from latentcli.images.codec import DecodedImage, DecodePolicy, decode_image
from latentcli.images.files.avif import nclx_of

OPTIONS = {"quality": 95, "subsampling": "4:4:4"}
PICTURE = save(Image.fromarray(scene()), "AVIF", **OPTIONS)
FRAMES = {"save_all": True, "append_images": [Image.fromarray(scene()[::-1])]}
SEQUENCE = save(Image.fromarray(scene()), "AVIF", **OPTIONS, **FRAMES)
ALPHA = save(Image.fromarray(scene()).convert("RGBA"), "AVIF", **OPTIONS)


def decode(data: bytes) -> DecodedImage:
    return decode_image(data, DecodePolicy())


@pytest.mark.parametrize("file", [PICTURE, SEQUENCE, ALPHA], ids=["still", "sequence", "alpha"])
def test_codes_of_stills_and_sequences(file: bytes) -> None:
    assert nclx_of(file) == (1, 13)
    assert nclx_of(with_nclx(file, 9, 16)) == (9, 16)


@pytest.mark.parametrize("file", [PICTURE, SEQUENCE, ALPHA], ids=["still", "sequence", "alpha"])
@pytest.mark.parametrize(
    ("primaries", "name", "matrix"),
    [(12, "Display P3", P3_TO_SRGB), (9, "BT.2020", BT2020_TO_SRGB)],
)
def test_other_primaries_are_converted(file, primaries: int, name: str, matrix) -> None:
    plain = decode(file)
    decoded = decode(with_nclx(file, primaries, 13))
    expected = in_srgb(srgb_linear(np.asarray(plain.image) / 255), matrix)
    assert np.abs(np.asarray(decoded.image) - expected).max() < 1
    assert set(decoded.notes) - set(plain.notes) == {f"colours of {name} to sRGB"}


def test_linear_light_is_converted() -> None:
    plain = np.asarray(decode(PICTURE).image)
    decoded = np.asarray(decode(with_nclx(PICTURE, 1, 8)).image)
    assert np.abs(decoded - in_srgb(plain / 255)).max() < 1


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
@pytest.mark.parametrize("file", [PICTURE, SEQUENCE], ids=["still", "sequence"])
def test_hdr_is_refused_by_name(file: bytes, transfer: int, name: str) -> None:
    with pytest.raises(SampleError, match=rf"its colours are {name} \(HDR\)"):
        decode(with_nclx(file, 9, transfer))


def test_a_profile_goes_before_numbers() -> None:
    profile = rgb_profile(P3_D50, "Display P3")
    data = save(Image.fromarray(scene()), "AVIF", **OPTIONS, icc_profile=profile)
    assert decode(with_nclx(data, 9, 13)).notes == ("colour profile Display P3 to sRGB",)


def test_without_a_colour_box_it_is_srgb() -> None:
    assert decode(PICTURE.replace(b"colrnclx", b"freenclx")).notes == ()


def test_grey_keeps_its_primaries_out() -> None:
    grey = save(Image.fromarray(scene()[..., 0]), "AVIF", **OPTIONS)
    decoded = decode(with_nclx(grey, 12, 13))
    assert np.array_equal(np.asarray(decoded.image), np.asarray(decode(grey).image))
