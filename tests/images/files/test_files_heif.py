"""HEIF files come out as the pictures that were written into them."""

from __future__ import annotations

import io

import numpy as np
import pillow_heif
import pytest
from harness.colours import P3_TO_SRGB, in_srgb, srgb_linear
from harness.picture_files import P3_D50, rgb_profile, scene
from PIL import Image

from latentcli.core.errors import SampleError
from latentcli.images.codec import DecodedImage, DecodePolicy, decode_image

DISPLAY_P3 = {"color_primaries": 12, "transfer_characteristics": 13}


def heic(values: np.ndarray, mode: str = "RGB", **options: object) -> bytes:
    height, width = values.shape[:2]
    file = io.BytesIO()
    stored = pillow_heif.from_bytes(mode, (width, height), values.tobytes())
    stored.save(file, **{"quality": -1, "chroma": 444, **options})
    return file.getvalue()


def decode(data: bytes, **policy: object) -> DecodedImage:
    return decode_image(data, DecodePolicy(**policy))  # type: ignore[arg-type]


def reason(data: bytes, **policy: object) -> str:
    with pytest.raises(SampleError) as caught:
        decode(data, **policy)
    return caught.value.reason


PICTURE = heic(scene())


def test_colours() -> None:
    decoded = decode(PICTURE)
    assert np.abs(np.asarray(decoded.image).astype(int) - scene()).max() <= 4
    assert decoded.original_size == (96, 64)
    assert decoded.notes == ()


def test_grey_is_exact() -> None:
    grey = scene()[..., 0].copy()
    assert np.array_equal(np.asarray(decode(heic(grey, "L")).image), np.stack([grey] * 3, axis=-1))


def test_alpha() -> None:
    seen = np.dstack([scene(), np.zeros(scene().shape[:2], np.uint8)])
    seen[:, 48:, 3] = 255
    decoded = decode(heic(seen, "RGBA"), alpha="black")
    assert (np.asarray(decoded.image)[:, :44] == 0).all()
    assert np.abs(np.asarray(decoded.image)[:, 52:].astype(int) - scene()[:, 52:]).max() <= 4
    assert decoded.notes == ("alpha on black",)


@pytest.mark.parametrize("mode", ["RGBa", "RGBa;16"])
def test_premultiplied_alpha_is_taken_out(mode: str) -> None:
    flat = np.full((32, 32, 4), (100, 50, 20, 128), np.uint8)
    stored = flat if mode == "RGBa" else flat.astype(np.uint16) * 257
    seen = np.array([100, 50, 20]) * 255 / 128
    dropped = np.asarray(decode(heic(stored, mode), alpha="drop").image)[16, 16]
    assert np.abs(dropped - seen).max() <= 4
    on_white = np.asarray(decode(heic(stored, mode)).image)[16, 16]
    assert np.abs(on_white - np.array([227, 177, 147])).max() <= 2


@pytest.mark.parametrize("bits", [10, 12])
def test_more_bits_are_rounded_to_8(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pillow_heif.options, "SAVE_HDR_TO_12_BIT", bits == 12)
    wide = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16
    decoded = decode(heic(wide, "L;16"))
    stored = np.right_shift(wide, 16 - bits)
    expected = stored * (255 / (2**bits - 1))
    assert np.abs(np.asarray(decoded.image)[..., 0] - expected).max() < 0.51
    assert decoded.notes == ("16-bit values to 8-bit",)
    coloured = decode(heic(np.stack([wide] * 3, axis=-1), "RGB;16"))
    assert np.abs(np.asarray(coloured.image) - expected[..., None]).max() <= 2


def test_colours_told_by_numbers() -> None:
    plain = np.asarray(decode(PICTURE).image)
    decoded = decode(heic(scene(), **DISPLAY_P3))
    expected = in_srgb(srgb_linear(plain / 255), P3_TO_SRGB)
    assert np.abs(np.asarray(decoded.image) - expected).max() < 1
    assert decoded.notes == ("colours of Display P3 to sRGB",)
    wide = decode(heic(scene().astype(np.uint16) * 257, "RGB;16", **DISPLAY_P3))
    assert np.abs(np.asarray(wide.image) - expected).max() <= 6
    assert wide.notes == ("16-bit values to 8-bit", "colours of Display P3 to sRGB")


def test_hdr_is_refused_by_name() -> None:
    pq = heic(scene(), color_primaries=9, transfer_characteristics=16)
    assert "its colours are PQ (HDR)" in reason(pq)


def test_a_profile_goes_before_numbers() -> None:
    profile = rgb_profile(P3_D50, "Display P3")
    file = io.BytesIO()
    stored = pillow_heif.from_bytes("RGB", (96, 64), scene().tobytes())
    stored.info["icc_profile"] = profile
    stored.info["icc_profile_type"] = "prof"
    stored.save(file, quality=-1, chroma=444)
    decoded = decode(file.getvalue())
    expected = in_srgb(srgb_linear(scene() / 255), P3_TO_SRGB)
    assert np.abs(np.asarray(decoded.image) - expected).mean() < 2
    assert decoded.notes == ("colour profile Display P3 to sRGB",)


@pytest.mark.parametrize("turn", range(1, 9))
def test_boxes_turn_it_upright_and_exif_does_not_turn_it_again(turn: int) -> None:
    """As phones write it: in the boxes, and in EXIF too."""
    exif = Image.Exif()
    exif[274] = turn
    stored = pillow_heif.from_bytes("RGB", (96, 64), scene().tobytes())
    stored.info["exif"] = exif.tobytes()
    file = io.BytesIO()
    stored.save(file, quality=-1, chroma=444)
    upright = {
        1: scene(),
        2: scene()[:, ::-1],
        3: scene()[::-1, ::-1],
        4: scene()[::-1],
        5: scene().transpose(1, 0, 2),
        6: np.rot90(scene(), -1),
        7: scene()[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(scene(), 1),
    }[turn]
    decoded = decode(file.getvalue())
    assert np.abs(np.asarray(decoded.image).astype(int) - upright).max() <= 4
    assert decoded.original_size == upright.shape[1::-1]


def test_the_primary_of_several_pictures_is_taken() -> None:
    stored = pillow_heif.from_bytes("RGB", (96, 64), scene()[::-1].tobytes())
    stored.add_frombytes("RGB", (96, 64), scene().tobytes())
    file = io.BytesIO()
    stored.save(file, quality=-1, chroma=444, primary_index=1)
    decoded = decode(file.getvalue())
    assert np.abs(np.asarray(decoded.image).astype(int) - scene()).max() <= 4
    assert decoded.notes == ("primary of several pictures",)


def test_large_pictures_are_refused_by_their_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pillow_heif.HeifImage, "load", lambda self: pytest.fail("decoded"))
    assert "96x64, 6,144 pixels" in reason(PICTURE, max_pixels=6143)


@pytest.mark.parametrize("keep", [20, 200, len(PICTURE) // 2, len(PICTURE) - 1])
def test_cut_files_fail(keep: int) -> None:
    assert reason(PICTURE[:keep]).startswith("HEIC file is")


def test_random_damage_gives_a_picture_or_a_reason() -> None:
    random = np.random.default_rng(0)
    for _ in range(60):
        data = bytearray(PICTURE)
        for place in random.integers(0, len(data), 3):
            data[place] = random.integers(256)
        try:
            assert decode(bytes(data), max_pixels=10**6).image.mode == "RGB"
        except SampleError as error:
            assert error.stage == "decode_image"
