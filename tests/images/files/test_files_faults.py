"""Files that once gave wrong pixels, a wrong refusal or silence; each has a right outcome."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from harness.colours import P3_TO_SRGB, in_srgb, srgb_linear
from PIL import Image

from latentcli.core.errors import SampleError
from latentcli.images.codec import DecodedImage, DecodePolicy, decode_image

pytestmark = pytest.mark.shared


@pytest.fixture
def faults(shared: Path) -> Path:
    return shared / "faults"


def decode(path: Path) -> DecodedImage:
    return decode_image(path.read_bytes(), DecodePolicy())


def pixels(path: Path) -> np.ndarray:
    return np.asarray(decode(path).image).astype(int)


@pytest.mark.parametrize(
    ("file", "twin"),
    [
        ("planar16.tif", "chunky16.tif"),
        ("swapped.jp2", "swapped.png"),
        ("text_2mb.png", "reference.png"),
    ],
)
def test_twins_are_equal(faults: Path, file: str, twin: str) -> None:
    assert np.abs(pixels(faults / file) - pixels(faults / twin)).max() <= 1


def test_a_swapped_profile_swaps_colours(faults: Path) -> None:
    stored = np.asarray(Image.open(faults / "swapped.png").convert("RGB")).astype(int)
    assert np.abs(pixels(faults / "swapped.jp2") - stored).max() > 100
    assert decode(faults / "swapped.jp2").notes == decode(faults / "swapped.png").notes


def test_display_p3_of_avif(faults: Path) -> None:
    path = faults / "avif_p3.avif"
    stored = np.asarray(Image.open(path).convert("RGB")) / 255
    expected = in_srgb(srgb_linear(stored), P3_TO_SRGB)
    assert np.abs(pixels(path) - expected).max() < 1
    assert decode(path).notes == ("colours of Display P3 to sRGB",)


def test_pq_of_png_fails_with_its_reason(faults: Path) -> None:
    with pytest.raises(SampleError, match=r"its colours are PQ \(HDR\).*convert it to sRGB"):
        decode(faults / "cicp_pq.png")
    assert decode(faults / "reference.png").notes == ()


def test_half_a_jpeg_fails_and_the_whole_is_read(faults: Path) -> None:
    with pytest.raises(SampleError, match="JPEG file is cut short"):
        decode(faults / "cut_with_end_marker.jpg")
    whole = decode(faults / "whole.jpg")
    assert whole.notes == ()
    with Image.open(faults / "whole.jpg") as image:
        assert np.array_equal(np.asarray(whole.image), np.asarray(image.convert("RGB")))
