"""Camera RAW files are developed to sRGB, upright, and never read as their previews."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from harness.colours import in_srgb
from harness.picture_files import save, scene
from harness.tiff_files import camera_raw
from PIL import Image

from latentcli.core.errors import SampleError
from latentcli.images.codec import DecodedImage, DecodePolicy, decode_image

FLAT = np.array([[0.5, 0.1, 0.1], [0.1, 0.4, 0.1], [0.2, 0.2, 0.2]])


def light() -> np.ndarray:
    """Linear light [64, 96, 3]: three flat colours beside each other, and white below."""
    values = np.repeat(FLAT, 32, axis=0)[None].repeat(64, axis=0)
    values[-8:] = 1
    return values


def sensor(values: np.ndarray) -> np.ndarray:
    mosaic = values[..., 1].copy()
    mosaic[0::2, 0::2] = values[0::2, 0::2, 0]
    mosaic[1::2, 1::2] = values[1::2, 1::2, 2]
    return np.round(mosaic * 65535).astype(np.uint16)


def decode(data: bytes, **policy: object) -> DecodedImage:
    return decode_image(data, DecodePolicy(**policy))  # type: ignore[arg-type]


def reason(data: bytes, **policy: object) -> str:
    with pytest.raises(SampleError) as caught:
        decode(data, **policy)
    return caught.value.reason


def test_colours_are_those_of_the_light() -> None:
    decoded = decode(camera_raw(sensor(light())))
    pixels = np.asarray(decoded.image)
    for colour, column in zip(FLAT, (16, 48, 80), strict=True):
        assert np.abs(pixels[20:40, column - 8 : column + 8] - in_srgb(colour)).max() <= 1
    assert (pixels[-3:] == 255).all()
    assert decoded.notes == ("developed from camera RAW",)


def test_the_white_balance_of_the_camera_is_applied() -> None:
    seen = light() * [0.5, 1.0, 0.25]
    decoded = decode(camera_raw(sensor(seen), {50728: [(1, 2), (1, 1), (1, 4)]}))
    assert np.abs(np.asarray(decoded.image)[20:40, 76:84] - in_srgb(FLAT[2])).max() <= 2


def test_it_is_turned_upright() -> None:
    upright = np.asarray(decode(camera_raw(sensor(light()))).image)
    turned = decode(camera_raw(sensor(light()), {274: 6}))
    assert turned.original_size == (64, 96)
    assert np.abs(np.asarray(turned.image).astype(int) - np.rot90(upright, -1)).max() <= 1


def test_large_pictures_are_refused_by_their_header() -> None:
    assert "96x64, 6,144 pixels" in reason(camera_raw(sensor(light())), max_pixels=6143)


@pytest.mark.parametrize("keep", [0.2, 0.5, 0.95])
def test_cut_files_fail(keep: float) -> None:
    data = camera_raw(sensor(light()))
    assert reason(data[: int(len(data) * keep)]).startswith("camera RAW file is cut short")


def test_a_cut_file_of_another_kind_than_dng_is_told() -> None:
    """Some cameras state sizes that are not true, so that alone is no reason to refuse."""
    data = camera_raw(sensor(light()))
    other = data.replace(struct.pack("<HHI", 50706, 1, 4), struct.pack("<HHI", 50705, 1, 4))
    told = ("developed from camera RAW",)
    assert decode(other).notes == told
    cut = "camera RAW file may be cut short: it names data that are not there"
    assert set(decode(other[:-1]).notes) == {cut, *told}


@pytest.mark.parametrize(
    "head",
    [b"II*\x00\x10\x00\x00\x00CR\x02\x00", b"FUJIFILMCCD-RAW 0201", b"IIU\x00\x18\x00\x00\x00"],
)
def test_what_only_begins_as_one_fails(head: bytes) -> None:
    assert reason(head + bytes(4000)).startswith("camera RAW file is damaged")


def test_a_preview_is_never_taken_for_the_picture() -> None:
    """A camera's TIFF whose first directory is a thumbnail, and the rest is not there."""
    data = save(Image.fromarray(scene()), "TIFF", tiffinfo={254: 1, 330: 4000})
    assert reason(data).startswith("camera RAW file is damaged")
