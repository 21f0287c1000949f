"""TIFF files: planes apart give the pixels of channels interleaved, or a reason."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from harness.colours import ADOBE_TO_SRGB, in_srgb, srgb_linear
from harness.picture_files import P3_D50, png, rgb_profile, save, scene
from harness.tiff_files import GREY, INKS, LAB, PREMULTIPLIED, RGB, STRAIGHT, directory, planes
from PIL import Image, ImageCms

from latentcli.core.errors import SampleError
from latentcli.images.codec import DecodedImage, DecodePolicy, decode_image

EXTRA = 338


def decode(data: bytes, **policy: object) -> DecodedImage:
    return decode_image(data, DecodePolicy(**policy))  # type: ignore[arg-type]


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(decode(data).image)


def reason(data: bytes, **policy: object) -> str:
    with pytest.raises(SampleError) as caught:
        decode(data, **policy)
    return caught.value.reason


def noise(channels: int, dtype: str = "u2") -> np.ndarray:
    top = np.iinfo(dtype).max
    return np.random.default_rng(0).integers(0, top, (50, 70, channels), dtype, endpoint=True)


def narrow(wide: np.ndarray) -> np.ndarray:
    return wide if wide.dtype == np.uint8 else np.floor(wide * (255 / 65535) + 0.5)


def on_white(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    alpha = alpha.astype(float) / np.iinfo(alpha.dtype).max
    return narrow(colours) * alpha + 255 * (1 - alpha)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("deflate", [False, True], ids=["raw", "deflate"])
@pytest.mark.parametrize("dtype", ["u1", "u2"])
@pytest.mark.parametrize("rows", [16, 50])
def test_planes_of_rgb(dtype: str, deflate: bool, order: str, rows: int) -> None:
    values = noise(3, dtype)
    decoded = decode(planes(values, order=order, deflate=deflate, rows=rows))
    assert np.array_equal(np.asarray(decoded.image), narrow(values))
    assert decoded.notes == (() if dtype == "u1" else ("16-bit values to 8-bit",))


@pytest.mark.parametrize("deflate", [False, True], ids=["raw", "deflate"])
@pytest.mark.parametrize("dtype", ["u1", "u2"])
@pytest.mark.parametrize(("kind", "channels"), [(RGB, 4), (GREY, 2)], ids=["RGB", "grey"])
def test_planes_with_alpha(kind: int, channels: int, dtype: str, deflate: bool) -> None:
    values = noise(channels, dtype)
    decoded = decode(planes(values, kind, deflate=deflate, tags={EXTRA: STRAIGHT}))
    expected = on_white(values[..., :-1], values[..., -1:])
    assert np.abs(np.asarray(decoded.image) - expected).max() <= 1
    assert decoded.notes[-1] == "alpha on white"


@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_planes_with_premultiplied_alpha(dtype: str) -> None:
    values = noise(4, dtype)
    top = np.iinfo(dtype).max
    alpha = np.maximum(values[..., 3:], top // 2)
    stored = np.concatenate([values[..., :3].astype(float) * alpha / top, alpha], axis=-1)
    result = pixels(planes(np.round(stored).astype(dtype), tags={EXTRA: PREMULTIPLIED}))
    assert np.abs(result - on_white(values[..., :3], alpha).round()).max() <= 1


@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_planes_of_no_meaning_are_left_out(dtype: str) -> None:
    values = noise(5, dtype)
    assert np.array_equal(pixels(planes(values, tags={EXTRA: [0, 0]})), narrow(values[..., :3]))


@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_planes_of_ink(dtype: str) -> None:
    values = noise(4, dtype)
    high = values if dtype == "u1" else (values >> 8).astype(np.uint8)
    interleaved = save(Image.fromarray(high, "CMYK"), "TIFF")
    assert np.array_equal(pixels(planes(values, INKS)), pixels(interleaved))


def test_planes_of_floats() -> None:
    values = np.random.default_rng(0).random((20, 30, 3), np.float32)
    decoded = decode(planes(values))
    assert np.abs(np.asarray(decoded.image) - values * 255).max() < 0.51
    assert decoded.notes == ("float values to 8-bit",)
    assert "holds values from" in reason(planes(values * 3))


def test_planes_of_12_bits() -> None:
    """Two values in three bytes, as the grey ones that Pillow reads."""
    values = np.random.default_rng(0).integers(0, 4096, (20, 30, 3))
    strips = []
    for channel in range(3):
        first, second = values[..., channel].reshape(-1, 2).T
        packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], axis=1)
        strips.append(packed.astype(np.uint8).tobytes())
    tags = {256: 30, 257: 20, 258: [12] * 3, 259: 1, 262: RGB, 277: 3, 278: 20, 284: 2}
    assert np.abs(pixels(directory(tags, strips)) - values * (255 / 4095)).max() < 0.51


def test_planes_in_tiles() -> None:
    values = np.zeros((48, 80, 3), np.uint16)
    values[:] = np.random.default_rng(0).integers(0, 65536, values.shape)
    tiles = [
        values[y : y + 16, x : x + 16, channel].tobytes()
        for channel in range(3)
        for y in range(0, 48, 16)
        for x in range(0, 80, 16)
    ]
    data = directory(
        {256: 80, 257: 48, 258: [16] * 3, 259: 1, 262: RGB, 277: 3, 284: 2, 322: 16, 323: 16}, tiles
    )
    # The same places, under the names that tiles have.
    names = bytearray(data)
    for at in range(10, 10 + 12 * data[8], 12):
        (tag,) = struct.unpack_from("<H", data, at)
        struct.pack_into("<H", names, at, {273: 324, 279: 325}.get(tag, tag))
    assert np.array_equal(pixels(bytes(names)), narrow(values))


def test_bits_in_the_other_order() -> None:
    values = noise(3, "u1")
    turned = np.packbits(np.unpackbits(values, axis=-1, bitorder="big"), axis=-1, bitorder="little")
    assert np.array_equal(pixels(planes(turned.reshape(values.shape), tags={266: 2})), values)


@pytest.mark.parametrize("turn", range(1, 9))
def test_planes_are_turned_upright(turn: int) -> None:
    values = scene().astype(np.uint16) * 257
    exif = Image.Exif()
    exif[274] = turn
    interleaved = decode(save(Image.fromarray(scene()), "TIFF", exif=exif))
    apart = decode(planes(values, tags={274: turn}))
    assert np.array_equal(np.asarray(apart.image), np.asarray(interleaved.image))
    assert set(apart.notes) - {"16-bit values to 8-bit"} == set(interleaved.notes)


def test_a_profile_of_planes_is_applied() -> None:
    profile = rgb_profile(P3_D50, "Display P3")
    apart = decode(planes(scene(), tags={34675: profile}))
    interleaved = decode(save(Image.fromarray(scene()), "TIFF", icc_profile=profile))
    assert np.array_equal(np.asarray(apart.image), np.asarray(interleaved.image))
    assert apart.notes == ("colour profile Display P3 to sRGB",)


def test_primaries_told_by_tags() -> None:
    corners = [0.64, 0.33, 0.21, 0.71, 0.15, 0.06]
    tags = {319: [(round(v * 10000), 10000) for v in corners]}
    expected = in_srgb(srgb_linear(scene() / 255), ADOBE_TO_SRGB)
    assert np.abs(pixels(planes(scene(), tags=tags)) - expected).max() < 1
    own = {319: [(round(v * 10000), 10000) for v in [0.64, 0.33, 0.3, 0.6, 0.15, 0.06]]}
    assert np.array_equal(pixels(planes(scene(), tags=own)), scene())


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (planes(noise(3), LAB), "colours that are not grey, RGB or CMYK"),
        (planes(noise(2), RGB), "fewer planes than its colours need"),
        (planes(noise(3), tags={258: [16, 16, 8]}), "planes"),
        (planes(noise(3))[:-9000], "cut short"),
    ],
    ids=["Lab", "two of three", "depths", "cut"],
)
def test_other_planes_fail_with_a_reason(data: bytes, words: str) -> None:
    assert words in reason(data)


def test_strips_that_are_the_whole_file_each_are_refused() -> None:
    values = noise(3)
    data = planes(values, rows=1)
    tags = {256: 70, 257: 50, 258: [16] * 3, 259: 1, 262: RGB, 277: 3, 278: 1, 284: 2}
    bomb = bytearray(directory(tags, [b"x" * 140] * 150))
    for at in range(10, 10 + 12 * data[8], 12):
        tag, _, count, place = struct.unpack_from("<HHII", bomb, at)
        if tag == 279:
            struct.pack_into(f"<{count}I", bomb, place, *[len(bomb) - 400] * count)
    assert "more bytes in its strips than there are" in reason(bytes(bomb))


def test_large_planes_are_refused_by_their_header() -> None:
    assert "70x50, 3,500 pixels" in reason(planes(noise(3)), max_pixels=3499)


def test_signed_values_are_refused() -> None:
    tags = {256: 8, 257: 8, 258: 8, 259: 1, 262: GREY, 277: 1, 278: 8, 339: 2}
    assert "signed 8-bit values" in reason(directory(tags, [bytes(range(64))]))


def test_lab_interleaved_is_still_read() -> None:
    lab = ImageCms.profileToProfile(
        Image.fromarray(scene()),
        ImageCms.createProfile("sRGB"),
        ImageCms.createProfile("LAB"),
        outputMode="LAB",
    )
    assert lab is not None
    assert np.abs(pixels(save(lab, "TIFF")).astype(int) - scene()).mean() < 1


def test_16_bits_apart_interleaved_and_in_png_are_one_picture() -> None:
    values = noise(3)
    strip = values.astype("<u2").tobytes()
    tags = {256: 70, 257: 50, 258: [16] * 3, 259: 1, 262: RGB, 277: 3, 278: 50}
    interleaved = pixels(directory(tags, [strip]))
    assert np.array_equal(pixels(planes(values)), interleaved)
    assert np.array_equal(pixels(png(values, 2, 16)), interleaved)
