"""Profiles that are numbers alone are applied to 16-bit pictures without loss."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from harness.colours import P3_TO_SRGB, in_srgb, srgb_linear
from harness.picture_files import (
    P3_D50,
    SRGB_D50,
    cmyk_profile,
    grey_profile,
    png,
    rgb_profile,
    save,
    scene,
)
from harness.tiff_files import RGB, directory
from PIL import Image, ImageCms

from latentcli.images.codec import DecodedImage, DecodePolicy, decode_image
from latentcli.images.colour_space import changes_nothing
from latentcli.images.icc_matrix import space_of_profile

PROFILE = 34675


def tiff(values: np.ndarray, profile: bytes) -> bytes:
    """uint16 [H, W, 3] with a profile, interleaved."""
    height, width = values.shape[:2]
    tags = {256: width, 257: height, 258: [16] * 3, 259: 1, 262: RGB, 277: 3, 278: height}
    return directory({**tags, PROFILE: profile}, [values.astype("<u2").tobytes()])


def decode(data: bytes) -> DecodedImage:
    return decode_image(data, DecodePolicy())


def ramp() -> np.ndarray:
    wide = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    return np.stack([wide, wide // 2, wide // 300], axis=-1)


@pytest.mark.parametrize("gamma", [None, 1.0, 1.8, 2.2])
def test_16_bit_colour_keeps_its_dark_tones(gamma: float | None) -> None:
    decoded = decode(tiff(ramp(), rgb_profile(P3_D50, "Display P3", gamma)))
    v = ramp() / 65535
    linear = srgb_linear(v) if gamma is None else v**gamma
    assert np.abs(np.asarray(decoded.image) - in_srgb(linear, P3_TO_SRGB)).max() < 1.5
    assert decoded.notes == ("16-bit values to 8-bit", "colour profile Display P3 to sRGB")


def test_16_bit_grey_keeps_its_dark_tones() -> None:
    wide = ramp()[..., 0]
    grey = Image.fromarray(wide)
    for profile in (grey_profile(1.0, "Linear"), rgb_profile(SRGB_D50, "Linear", 1.0)):
        decoded = decode(save(grey, "TIFF", icc_profile=profile))
        expected = in_srgb(np.stack([wide] * 3, axis=-1) / 65535)
        assert np.abs(np.asarray(decoded.image) - expected).max() < 1
        assert decoded.notes == ("16-bit values to 8-bit", "colour profile Linear to sRGB")


def test_srgb_of_16_bits_is_only_rounded() -> None:
    built_in = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (built_in, rgb_profile(SRGB_D50, "some camera's sRGB")):
        decoded = decode(tiff(ramp(), profile))
        expected = np.floor(ramp() * (255 / 65535) + 0.5)
        assert np.array_equal(np.asarray(decoded.image), expected)
        assert decoded.notes == ("16-bit values to 8-bit",)


def test_8_and_16_bits_are_one_picture() -> None:
    profile = rgb_profile(P3_D50, "Display P3")
    narrow = decode(save(Image.fromarray(scene()), "TIFF", icc_profile=profile))
    wide = decode(tiff(scene().astype(np.uint16) * 257, profile))
    difference = np.asarray(wide.image).astype(int) - np.asarray(narrow.image)
    assert np.abs(difference).max() <= 1


def test_a_profile_of_another_kind_is_told() -> None:
    decoded = decode(tiff(ramp(), grey_profile(1.0, "Linear Grey")))
    assert decoded.notes == (
        "16-bit values to 8-bit",
        "colour profile Linear Grey ignored: it is not for a RGB picture",
    )
    broken = decode(tiff(ramp(), rgb_profile(P3_D50, "Display P3")[:200]))
    assert broken.notes == ("16-bit values to 8-bit", "colour profile ignored: it is broken")


def with_curve(curve: bytes) -> bytes:
    """A profile of sRGB's primaries whose three channels share a curve."""
    profile = bytearray(rgb_profile(SRGB_D50, "curve", 2.0))
    start = len(profile)
    for at in range(132, 132 + 12 * int.from_bytes(profile[128:132], "big"), 12):
        if profile[at + 1 : at + 4] == b"TRC":
            profile[at + 4 : at + 12] = struct.pack(">II", start, len(curve))
    profile[:4] = struct.pack(">I", start + len(curve))
    return bytes(profile) + curve


def parametric(form: int, *values: float) -> bytes:
    fixed = struct.pack(f">{len(values)}i", *(round(v * 65536) for v in values))
    return b"para" + bytes(4) + struct.pack(">HH", form, 0) + fixed


V = np.linspace(0, 1, 256)
CUBES = np.round(np.linspace(0, 1, 1024) ** 3 * 65535).astype(">u2").tobytes()
CURVES = {
    "no entries": (b"curv" + bytes(4) + struct.pack(">I", 0), V),
    "one entry": (b"curv" + bytes(4) + struct.pack(">IH", 1, 2 * 256), V**2),
    "a table": (b"curv" + bytes(4) + struct.pack(">I", 1024) + CUBES, V**3),
    "form 0": (parametric(0, 1.5), V**1.5),
    "form 1": (parametric(1, 2, 1.25, -0.25), np.maximum(1.25 * V - 0.25, 0) ** 2),
    "form 2": (parametric(2, 2, 1, 0, 0), V**2),
    "form 3": (parametric(3, 2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045), srgb_linear(V)),
    "form 4": (parametric(4, 2, 1, 0, 0.25, 0.25, 0, 0), np.where(V >= 0.25, V**2, V / 4)),
}


@pytest.mark.parametrize("name", CURVES)
def test_every_form_of_a_curve(name: str) -> None:
    curve, light = CURVES[name]
    profile = with_curve(curve)
    grey = np.stack([np.arange(256, dtype=np.uint8).reshape(16, 16)] * 3, axis=-1)
    decoded = decode(tiff(grey.astype(np.uint16) * 257, profile))
    expected = in_srgb(np.stack([light] * 3, axis=-1)).reshape(16, 16, 3)
    assert np.abs(np.asarray(decoded.image) - expected).max() < 1.1
    engine = decode(save(Image.fromarray(grey), "PNG", icc_profile=profile))
    assert np.abs(np.asarray(engine.image).astype(int) - np.asarray(decoded.image)).max() <= 2


def test_profiles_of_tables_are_left_to_the_engine() -> None:
    assert space_of_profile(cmyk_profile(np.zeros((16, 3)), "Ink")) is None
    assert space_of_profile(b"") is None
    assert space_of_profile(bytes(200)) is None
    sound = space_of_profile(rgb_profile(SRGB_D50, "sRGB"))
    assert sound is not None
    assert changes_nothing(sound)


def test_png_and_tiff_are_one_picture() -> None:
    profile = rgb_profile(P3_D50, "Display P3", 1.0)
    chunk = (b"iCCP", b"x\x00\x00" + zlib.compress(profile))
    in_png, in_tiff = decode(png(ramp(), 2, 16, chunk)), decode(tiff(ramp(), profile))
    assert np.array_equal(np.asarray(in_png.image), np.asarray(in_tiff.image))
