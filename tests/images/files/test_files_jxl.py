"""JPEG XL files come out as the pictures that were written into them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pillow_jxl
import pytest
from harness.colours import in_srgb
from harness.picture_files import SRGB_D50, rgb_profile, save, scene
from PIL import Image

from latentcli.core.errors import SampleError
from latentcli.images.codec import DecodedImage, DecodePolicy, decode_image
from latentcli.images.files.jxl_header import JxlHeader, read_header

LOSSLESS = {"lossless": True, "effort": 1}


def decode(data: bytes, **policy: object) -> DecodedImage:
    return decode_image(data, DecodePolicy(**policy))  # type: ignore[arg-type]


def reason(data: bytes, **policy: object) -> str:
    with pytest.raises(SampleError) as caught:
        decode(data, **policy)
    return caught.value.reason


PICTURE = save(Image.fromarray(scene()), "JXL", **LOSSLESS)


@pytest.mark.parametrize("use_container", [False, True])
def test_colours_are_exact(use_container: bool) -> None:
    data = save(Image.fromarray(scene()), "JXL", **LOSSLESS, use_container=use_container)
    decoded = decode(data)
    assert np.array_equal(np.asarray(decoded.image), scene())
    assert decoded.original_size == (96, 64)
    assert decoded.notes == ()


def test_lossy_colours_come_close() -> None:
    decoded = decode(save(Image.fromarray(scene()), "JXL", quality=95))
    assert np.abs(np.asarray(decoded.image).astype(int) - scene()).mean() < 2


def test_grey_and_alpha() -> None:
    grey = Image.fromarray(scene()[..., 0])
    assert np.array_equal(
        np.asarray(decode(save(grey, "JXL", **LOSSLESS)).image)[..., 1], scene()[..., 0]
    )
    seen = Image.fromarray(scene()).convert("RGBA")
    seen.putalpha(Image.fromarray((scene()[..., 0] > 128).astype(np.uint8) * 255))
    decoded = decode(save(seen, "JXL", **LOSSLESS), alpha="black")
    expected = np.where(scene()[..., :1] > 128, scene(), 0)
    assert np.array_equal(np.asarray(decoded.image), expected)
    assert decoded.notes == ("alpha on black",)


@pytest.mark.parametrize("kind", ["16 bits", "floats"])
def test_deep_grey_is_linear_light_as_its_profile_says(kind: str) -> None:
    """This encoder calls all grey of more than 8 bits linear; dark tones are kept."""
    levels = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    values = levels if kind == "16 bits" else (levels / 65535).astype(np.float32)
    decoded = decode(save(Image.fromarray(values), "JXL", **LOSSLESS))
    expected = in_srgb(np.stack([levels] * 3, axis=-1) / 65535)
    assert np.abs(np.asarray(decoded.image) - expected).max() < 1
    assert decoded.notes[0] == ("16-bit" if kind == "16 bits" else "float") + " values to 8-bit"
    assert decoded.notes[1].startswith("colour profile")


@pytest.mark.parametrize("turn", [1, 6])
def test_a_jpeg_inside_gives_the_pixels_of_that_jpeg(tmp_path: Path, turn: int) -> None:
    exif = Image.Exif()
    exif[274] = turn
    path = tmp_path / "picture.jpg"
    Image.fromarray(scene()).save(path, quality=90, exif=exif)
    with Image.open(path) as image:
        data = save(image, "JXL", lossless_jpeg=True)
    inside = decode(path.read_bytes())
    decoded = decode(data)
    assert np.array_equal(np.asarray(decoded.image), np.asarray(inside.image))
    assert decoded.original_size == ((64, 96) if turn == 6 else (96, 64))
    assert decoded.notes == inside.notes


def test_exif_does_not_turn_it() -> None:
    """The codestream has an orientation of its own, which its decoder applied."""
    exif = Image.Exif()
    exif[274] = 6
    data = save(Image.fromarray(scene()), "JXL", **LOSSLESS, exif=exif.tobytes())
    assert np.array_equal(np.asarray(decode(data).image), scene())


@pytest.mark.parametrize("use_container", [False, True])
@pytest.mark.parametrize(
    "size", [(1, 1), (64, 64), (77, 51), (300, 200), (16, 9), (1200, 1000), (256, 128), (9000, 2)]
)
def test_sizes_in_the_header(size: tuple[int, int], use_container: bool) -> None:
    image = Image.new("RGB", size, "red")
    data = save(image, "JXL", effort=1, use_container=use_container)
    assert read_header(data) == JxlHeader(size, is_animated=False)


def moving(fields: str) -> bytes:
    """A header of 8x8 pixels; `fields` are bits in the order in which they are read."""
    bits = "1" + "00000" + "100" + fields
    number = sum(1 << i for i, bit in enumerate(bits) if bit == "1")
    return b"\xff\x0a" + number.to_bytes(40, "little")


# Of a number, two bits choose its form, and each field is written from its lowest bit up.
OWN_SIZE = "1" + "1" + "00000" + "100"
PREVIEW = "1" + "0" + "01" + "000000" + "00" + "100"


@pytest.mark.parametrize(
    ("fields", "is_animated"),
    [
        ("1", False),
        ("0" + "0", False),
        ("0" + "1" + "000" + "0" + "0" + "0", False),
        ("0" + "1" + "000" + "0" + "0" + "1", True),
        ("0" + "1" + "101" + OWN_SIZE + "0" + "1", True),
    ],
)
def test_whether_it_moves(fields: str, is_animated: bool) -> None:
    assert read_header(moving(fields)) == JxlHeader((8, 8), is_animated)
    if is_animated:
        assert "JPEG XL file is animated" in reason(moving(fields))


def test_large_pictures_are_refused_by_their_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pillow_jxl, "Decoder", lambda **_: pytest.fail("decoded"))
    assert "96x64, 6,144 pixels" in reason(PICTURE, max_pixels=6143)


def test_linear_light_in_8_bits_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The decoder gives colours of any depth in 8 bits, which is too coarse for linear light."""
    linear, real = rgb_profile(SRGB_D50, "Linear", 1.0), pillow_jxl.Decoder

    def decoder(**options: int):
        def decode_it(data: bytes):
            first, info, stored, _, boxes = real(**options)(data)
            return first, info, stored, linear, boxes

        return decode_it

    monkeypatch.setattr(pillow_jxl, "Decoder", decoder)
    assert "holds linear light" in reason(PICTURE)


def test_a_panic_of_the_decoder_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no Exception, and would end the process."""

    class PanicException(BaseException):
        pass

    def decoder(**options: int):
        raise PanicException("not yet implemented")

    monkeypatch.setattr(pillow_jxl, "Decoder", decoder)
    assert reason(PICTURE) == "JPEG XL file is cut short, damaged or of an unsupported kind"


@pytest.mark.parametrize("keep", [3, 10, len(PICTURE) // 2, len(PICTURE) - 1])
def test_cut_files_fail(keep: int) -> None:
    assert reason(PICTURE[:keep]).startswith("JPEG XL file is cut short")


def test_random_damage_gives_a_picture_or_a_reason() -> None:
    random = np.random.default_rng(0)
    for _ in range(100):
        data = bytearray(PICTURE)
        for place in random.integers(2, len(data), 2):
            data[place] = random.integers(256)
        try:
            assert decode(bytes(data), max_pixels=10**6).image.mode == "RGB"
        except SampleError as error:
            assert error.stage == "decode_image"
