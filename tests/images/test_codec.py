"""Every kind of good picture comes out as upright sRGB, with a note of what was done to it."""

from __future__ import annotations

import io
import struct
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
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
from PIL import Image, ImageCms

from latentcli.core.errors import UsageError
from latentcli.images.codec import ALPHAS, DecodedImage, DecodePolicy, decode_image
from latentcli.images.formats import IMAGE_SUFFIXES

EXACT_FORMATS = {
    ".png": {},
    ".bmp": {},
    ".ppm": {},
    ".tga": {},
    ".tif": {"compression": "tiff_lzw"},
    ".tiff": {},
    ".webp": {"lossless": True},
    ".jp2": {},
}


def decode(data: bytes, **policy: object) -> DecodedImage:
    return decode_image(data, DecodePolicy(**policy))  # type: ignore[arg-type]


def pixels(data: bytes, **policy: object) -> np.ndarray:
    decoded = decode(data, **policy)
    assert decoded.image.mode == "RGB"
    assert decoded.original_size == decoded.image.size
    return np.asarray(decoded.image)


def narrow(wide: np.ndarray) -> np.ndarray:
    return np.floor(wide.astype(float) * 255 / 65535 + 0.5).astype(np.uint8)


@pytest.mark.parametrize("suffix", EXACT_FORMATS)
def test_lossless_formats_keep_every_pixel(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"picture{suffix}"
    Image.fromarray(scene()).save(path, **EXACT_FORMATS[suffix])
    assert suffix in IMAGE_SUFFIXES
    decoded = decode(path.read_bytes())
    assert np.array_equal(np.asarray(decoded.image), scene())
    assert decoded.notes == ()


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".jfif", ".jpe", ".avif", ".webp"])
def test_lossy_formats_come_close(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"picture{suffix}"
    Image.fromarray(scene()).save(path, quality=95)
    assert suffix in IMAGE_SUFFIXES
    assert np.abs(pixels(path.read_bytes()).astype(int) - scene()).mean() < 3


def test_suffixes_are_lower_case_with_a_dot() -> None:
    assert all(suffix[0] == "." and suffix == suffix.lower() for suffix in IMAGE_SUFFIXES)
    unknown_to_pillow = {".jif", ".jfi"}
    assert Image.registered_extensions().keys() >= IMAGE_SUFFIXES - unknown_to_pillow


def stored_as(upright: np.ndarray, orientation: int) -> np.ndarray:
    """What a camera stores: EXIF 2.3 names the side on which its first row and column lie."""
    swap = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }
    return np.ascontiguousarray(swap[orientation])


@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(format: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if format == "WEBP" else {}
    stored = Image.fromarray(stored_as(scene(), orientation))
    decoded = decode(save(stored, format, exif=exif, **options))
    assert np.array_equal(np.asarray(decoded.image), scene())
    assert decoded.original_size == (96, 64)
    expected = () if orientation == 1 else (f"orientation {orientation} applied",)
    assert decoded.notes == expected


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_of_a_jpeg(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(stored_as(scene(), orientation))
    result = pixels(save(stored, "JPEG", exif=exif, quality=95, subsampling=0))
    assert np.abs(result.astype(int) - scene()).max() < 12


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
@pytest.mark.parametrize("exif", [b"garbage", b"II*\x00", b"Exif\x00\x00MM\x00*\xff\xff\xff\xff"])
def test_broken_exif_is_ignored(format: str, exif: bytes) -> None:
    data = save(Image.fromarray(scene()), format, exif=exif, quality=95, subsampling=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        assert np.abs(pixels(data).astype(int) - scene()).max() < 12


def srgb_curve(linear: np.ndarray) -> np.ndarray:
    low, high = linear * 12.92, 1.055 * np.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055
    return np.where(linear <= 0.0031308, low, high)


def srgb_linear(coded: np.ndarray) -> np.ndarray:
    return np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)


@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF"])
def test_display_p3_becomes_srgb(format: str) -> None:
    options = {"lossless": True} if format == "WEBP" else {}
    profile = rgb_profile(P3_D50, "Display P3")
    decoded = decode(save(Image.fromarray(scene()), format, icc_profile=profile, **options))
    linear = srgb_linear(scene() / 255) @ (np.linalg.inv(SRGB_D50) @ P3_D50).T
    expected = np.round(255 * srgb_curve(linear.clip(0, 1)))
    assert np.abs(np.asarray(decoded.image) - expected).max() <= 2
    assert np.abs(scene() - expected).max() > 20
    assert decoded.notes == ("colour profile Display P3 to sRGB",)


@pytest.mark.parametrize("own", [True, False])
def test_srgb_profiles_change_nothing(own: bool) -> None:
    built_in = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile = rgb_profile(SRGB_D50, "some camera's sRGB") if own else built_in
    decoded = decode(save(Image.fromarray(scene()), "PNG", icc_profile=profile))
    assert np.array_equal(np.asarray(decoded.image), scene())
    assert decoded.notes == ()


def test_a_grey_profile_is_applied_to_grey() -> None:
    grey = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    decoded = decode(save(grey, "PNG", icc_profile=grey_profile(1.0, "Linear Grey")))
    expected = np.round(255 * srgb_curve(np.arange(256) / 255)).reshape(16, 16)
    assert np.abs(np.asarray(decoded.image) - expected[..., None]).max() <= 1
    assert decoded.notes == ("colour profile Linear Grey to sRGB",)


def test_a_grey_profile_is_applied_to_grey_with_alpha() -> None:
    values = np.stack([np.arange(256), np.arange(256) % 2 * 255], axis=-1).astype(np.uint8)
    image = Image.fromarray(values.reshape(16, 16, 2), "LA")
    result = pixels(save(image, "PNG", icc_profile=grey_profile(1.0, "Linear Grey")))
    expected = np.where(np.arange(256) % 2, 255 * srgb_curve(np.arange(256) / 255), 255)
    assert np.abs(result[..., 0].ravel() - expected).max() <= 1


def test_a_colour_profile_is_applied_to_grey() -> None:
    grey = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    profile = rgb_profile(P3_D50, "Bright P3", gamma=1.0)
    decoded = decode(save(grey, "PNG", icc_profile=profile))
    expected = np.round(255 * srgb_curve(np.arange(256) / 255)).reshape(16, 16)
    assert np.abs(np.asarray(decoded.image) - expected[..., None]).max() <= 2
    assert decoded.notes == ("colour profile Bright P3 to sRGB",)


@pytest.mark.parametrize("damage", ["cut", "noise", "wrong kind"])
def test_a_broken_profile_is_ignored_with_a_note(damage: str) -> None:
    profile = {
        "cut": rgb_profile(P3_D50, "Display P3")[:200],
        "noise": bytes(range(256)),
        "wrong kind": grey_profile(1.0, "Linear Grey"),
    }[damage]
    decoded = decode(save(Image.fromarray(scene()), "PNG", icc_profile=profile))
    assert np.array_equal(np.asarray(decoded.image), scene())
    assert len(decoded.notes) == 1
    assert "ignored" in decoded.notes[0]


def test_cmyk_without_a_profile() -> None:
    cmyk = Image.fromarray(scene()).convert("CMYK")
    decoded = decode(save(cmyk, "JPEG", quality=95, subsampling=0))
    assert np.abs(np.asarray(decoded.image).astype(int) - scene()).max() < 16
    assert decoded.notes == ("CMYK to RGB without a profile",)


def test_cmyk_with_a_profile() -> None:
    inks = np.stack(np.meshgrid(*[[0, 1]] * 4, indexing="ij"), axis=-1).reshape(16, 4)
    seen = np.array([0, 128, 255]) * inks[:, :1] + np.array([255, 255, 255]) * (1 - inks[:, :1])
    # Full black ink is a dark grey, as on paper; black point compensation makes it black.
    seen = seen * (1 - inks[:, 3:]) + 40 * inks[:, 3:]
    profile = cmyk_profile(lab_under_d50(seen / 255), "Strange Ink")
    flat = np.zeros((16, 48, 4), np.uint8)
    flat[:, 16:32, 0] = 255
    flat[:, 32:, 3] = 255
    decoded = decode(save(Image.fromarray(flat, "CMYK"), "TIFF", icc_profile=profile))
    white, cyan, black = (np.asarray(decoded.image)[8, x].astype(int) for x in (8, 24, 40))
    assert np.abs(white - 255).max() <= 2
    assert np.abs(cyan - [0, 128, 255]).max() <= 6
    assert black.max() <= 4
    assert decoded.notes == ("colour profile Strange Ink to sRGB",)
    jpeg = decode(save(Image.fromarray(flat, "CMYK"), "JPEG", icc_profile=profile, quality=95))
    assert np.abs(np.asarray(jpeg.image)[8, 24].astype(int) - cyan).max() <= 4


def lab_under_d50(rgb: np.ndarray) -> np.ndarray:
    x, y, z = (srgb_linear(rgb) @ SRGB_D50.T / [0.9642, 1.0, 0.8249]).T
    f = [np.where(v > 0.008856, np.cbrt(v), 7.787 * v + 16 / 116) for v in (x, y, z)]
    return np.stack([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])], axis=-1)


def test_lab_tiff() -> None:
    lab = ImageCms.profileToProfile(
        Image.fromarray(scene()),
        ImageCms.createProfile("sRGB"),
        ImageCms.createProfile("LAB"),
        outputMode="LAB",
    )
    assert lab is not None
    decoded = decode(save(lab, "TIFF"))
    assert np.abs(np.asarray(decoded.image).astype(int) - scene()).mean() < 1
    assert decoded.notes == ("Lab to sRGB",)


def test_ycbcr_tiff() -> None:
    data = save(Image.fromarray(scene()).convert("YCbCr"), "TIFF")
    assert np.abs(pixels(data).astype(int) - scene()).max() <= 3


@pytest.mark.parametrize("kind", ["png", "tiff", "big-endian tiff", "pgm"])
def test_16_bit_grey_is_scaled_and_rounded(kind: str) -> None:
    wide = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    image = Image.fromarray(wide)
    data = {
        "png": lambda: png(wide, 0, 16),
        "tiff": lambda: save(image, "TIFF"),
        "big-endian tiff": lambda: save(image, "TIFF", big_endian=True),
        "pgm": lambda: b"P5 256 256 65535\n" + wide.astype(">u2").tobytes(),
    }[kind]()
    decoded = decode(data)
    assert np.array_equal(np.asarray(decoded.image), narrow(wide)[..., None].repeat(3, axis=2))
    assert decoded.notes == ("16-bit values to 8-bit",)


def test_16_bit_grey_tiff_with_white_at_zero() -> None:
    wide = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    data = save(Image.fromarray(wide), "TIFF", tiffinfo={262: 0})
    if Image.open(io.BytesIO(data)).tag_v2[262] != 0:  # type: ignore[attr-defined]
        pytest.skip("this Pillow does not write the tag")
    assert np.array_equal(pixels(data)[..., 0], narrow(65535 - wide))


@pytest.mark.parametrize(("colour_type", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_16_bit_colour_png_is_scaled_and_rounded(colour_type: int, channels: int) -> None:
    wide = np.random.default_rng(0).integers(0, 65536, (64, 96, channels), dtype=np.uint16)
    colours = wide[..., : 3 if channels > 2 else 1]
    if channels != 3:
        wide[..., -1] = np.where(wide[..., -1] > 32767, 65535, 0)
    result = pixels(png(wide, colour_type, 16))
    expected = np.broadcast_to(narrow(colours), result.shape)
    if channels != 3:
        expected = np.where(wide[..., -1:] > 0, expected, 255)
    assert np.array_equal(result, expected)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate"])
def test_16_bit_colour_tiff_is_scaled_and_rounded(compression: str) -> None:
    wide = np.random.default_rng(0).integers(0, 65536, (64, 96, 3), dtype=np.uint16)
    narrow_bytes = Image.fromarray(wide.view(np.uint8).reshape(64, 192, 3))
    assert np.array_equal(
        pixels(as_wide(save(narrow_bytes, "TIFF", compression=compression))), narrow(wide)
    )


def as_wide(tiff: bytes) -> bytes:
    """An 8-bit RGB TIFF as 16-bit of half the width, which Pillow cannot write: same bytes."""
    data = bytearray(tiff)
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    for at in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind, _, value = struct.unpack_from("<HHII", data, at)
        if tag == 258:
            struct.pack_into("<3H", data, value, 16, 16, 16)
        if tag == 256:
            width = value if kind == 4 else value & 0xFFFF
            struct.pack_into("<HII", data, at + 2, 4, 1, width // 2)
    return bytes(data)


def test_12_bit_grey_tiff_is_scaled_to_its_own_white() -> None:
    values = np.arange(4096).reshape(64, 64)
    pairs = values.reshape(-1, 2)
    packed = np.stack(
        [pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], axis=1
    )
    data = bytearray(save(Image.fromarray(packed.astype(np.uint8).reshape(64, 96)), "TIFF"))
    (start,) = struct.unpack_from("<I", data, 4)
    for at in range(start + 2, start + 2 + 12 * data[start], 12):
        if (tag := struct.unpack_from("<H", data, at)[0]) in (256, 258):
            struct.pack_into("<HII", data, at + 2, 4, 1, {256: 64, 258: 12}[tag])
    expected = values * 255 / 4095
    assert np.abs(pixels(bytes(data))[..., 0] - expected).max() < 0.51


def test_a_transparent_16_bit_colour() -> None:
    wide = np.full((8, 8, 3), 30000, np.uint16)
    wide[2, 3] = (30000, 30000, 30001)
    key = (b"tRNS", np.array([30000, 30000, 30001], ">u2").tobytes())
    result = pixels(png(wide, 2, 16, key))
    assert result[2, 3].tolist() == [255, 255, 255]
    assert (np.delete(result.reshape(-1, 3), 2 * 8 + 3, axis=0) == 117).all()


def test_float_pictures() -> None:
    ramp = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    decoded = decode(save(Image.fromarray(ramp), "TIFF"))
    assert np.array_equal(np.asarray(decoded.image)[..., 0].ravel(), np.arange(256))
    assert decoded.notes == ("float values to 8-bit",)


def test_palette_with_transparency() -> None:
    image = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) % 3, "P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    result = pixels(save(image, "PNG", transparency=bytes([255, 0, 128])))
    assert result[0, 0].tolist() == [255, 0, 0]
    assert result[0, 1].tolist() == [255, 255, 255]
    assert result[0, 2].tolist() == [127, 127, 255]
    opaque = decode(save(image, "PNG"))
    assert np.asarray(opaque.image)[0, 1].tolist() == [0, 255, 0]
    assert opaque.notes == ()


@pytest.mark.parametrize("policy", ALPHAS)
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_policies(policy: str, mode: str) -> None:
    alpha = np.linspace(0, 255, 64).astype(np.uint8).reshape(8, 8)
    shape = (8, 8, 3) if mode == "RGBA" else (8, 8, 1)
    values = np.concatenate([np.full(shape, 40, np.uint8), alpha[..., None]], axis=-1)
    decoded = decode(save(Image.fromarray(values, mode), "PNG"), alpha=policy)
    behind = {"white": 255, "black": 0, "grey": 128, "drop": 40}[policy]
    expected = behind + (40 - behind) * (alpha[..., None] / 255)
    assert np.abs(np.asarray(decoded.image) - expected).max() <= 0.51
    assert decoded.notes == ("alpha dropped" if policy == "drop" else f"alpha on {policy}",)


def test_opaque_alpha_needs_no_note() -> None:
    decoded = decode(save(Image.fromarray(scene()).convert("RGBA"), "PNG"), alpha="black")
    assert np.array_equal(np.asarray(decoded.image), scene())
    assert decoded.notes == ()


def test_alpha_is_composited_after_the_profile() -> None:
    image = Image.fromarray(np.full((8, 8, 4), (255, 128, 0, 0), np.uint8), "RGBA")
    data = save(image, "PNG", icc_profile=rgb_profile(P3_D50, "Display P3"))
    assert (pixels(data, alpha="grey") == 128).all()


def test_a_transparent_grey_level() -> None:
    grey = Image.fromarray(np.array([[10, 20], [30, 40]], np.uint8))
    assert pixels(save(grey, "PNG", transparency=20))[..., 0].tolist() == [[10, 255], [30, 40]]


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM", "BMP", "GIF"])
def test_one_bit_pictures_are_black_and_white(format: str) -> None:
    bits = scene()[..., 0] > 128
    result = pixels(save(Image.fromarray(bits), format))
    assert np.array_equal(result, np.where(bits, 255, 0)[..., None].repeat(3, axis=2))


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_animations_give_their_first_frame(format: str) -> None:
    frames = [Image.new("RGB", (32, 24), colour) for colour in ("red", "lime", "blue")]
    decoded = decode(save(frames[0], format, save_all=True, append_images=frames[1:]))
    assert np.abs(np.asarray(decoded.image).astype(int) - [255, 0, 0]).max() < 8
    assert decoded.notes == ("first of several frames",)


def test_decoding_on_several_threads_gives_the_same() -> None:
    profile = rgb_profile(P3_D50, "Display P3")
    data = save(Image.fromarray(scene()), "PNG", icc_profile=profile)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(pixels, [data] * 40))
    assert all(np.array_equal(results[0], result) for result in results)


def test_policies_are_checked() -> None:
    with pytest.raises(UsageError, match=r"pink.*white, black, grey, drop"):
        DecodePolicy(alpha="pink")
    with pytest.raises(UsageError, match="at least 1"):
        DecodePolicy(max_pixels=0)
