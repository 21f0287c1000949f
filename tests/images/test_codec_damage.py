"""Whatever the bytes are: a whole picture, or one SampleError that says why not."""

from __future__ import annotations

import warnings
import zlib

import numpy as np
import pillow_heif
import pillow_jxl  # noqa: F401 - Pillow writes JPEG XL by it
import pytest
from harness.boxed_files import with_colour_box, with_nclx
from harness.picture_files import P3_D50, bomb_png, png, rgb_profile, save, scene
from harness.tiff_files import camera_raw, planes
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from latentcli.core.errors import SampleError
from latentcli.images.codec import DecodePolicy, decode_image

pillow_heif.register_heif_opener()
PICTURE = Image.fromarray(scene(64, 48))
ANIMATION = {"save_all": True, "append_images": [PICTURE.rotate(180)]}
FILES = {
    "jpeg": save(PICTURE, "JPEG", quality=90, icc_profile=rgb_profile(P3_D50, "Display P3")),
    "progressive jpeg": save(PICTURE, "JPEG", quality=90, progressive=True),
    "cmyk jpeg": save(PICTURE.convert("CMYK"), "JPEG", quality=90),
    "png": save(PICTURE, "PNG"),
    "16-bit png": png(scene(64, 48).astype(np.uint16) * 257, 2, 16),
    "palette png": save(PICTURE.quantize(16), "PNG", transparency=bytes([255, 0, 128])),
    "webp": save(PICTURE, "WEBP"),
    "lossless webp": save(PICTURE, "WEBP", lossless=True),
    "animated webp": save(PICTURE, "WEBP", **ANIMATION),
    "gif": save(PICTURE, "GIF"),
    "animated gif": save(PICTURE, "GIF", **ANIMATION),
    "animated png": save(PICTURE, "PNG", **ANIMATION),
    "tiff": save(PICTURE, "TIFF"),
    "lzw tiff": save(PICTURE, "TIFF", compression="tiff_lzw"),
    "bmp": save(PICTURE, "BMP"),
    "ppm": save(PICTURE, "PPM"),
    "tga": save(PICTURE, "TGA"),
    "jpeg 2000": save(PICTURE, "JPEG2000"),
    "jpeg 2000 with a profile": with_colour_box(
        save(PICTURE, "JPEG2000"), b"\x02\x00\x00" + rgb_profile(P3_D50, "Display P3")
    ),
    "avif": save(PICTURE, "AVIF"),
    "avif of p3": with_nclx(save(PICTURE, "AVIF"), 12, 13),
    "png with texts": png(
        scene(64, 48),
        2,
        8,
        (b"zTXt", b"Comment\x00\x00" + zlib.compress(bytes(2**21))),
        (b"cICP", b"\x0c\x0d\x00\x01"),
        (b"iCCP", b"name\x00\x00" + zlib.compress(rgb_profile(P3_D50, "Display P3"))),
    ),
    "grey jpeg": save(PICTURE.convert("L"), "JPEG", quality=90),
    "jpeg with restarts": save(PICTURE, "JPEG", quality=90, restart_marker_blocks=2),
    "planar tiff": planes(scene(64, 48).astype(np.uint16) * 257),
    "packed planar tiff": planes(scene(64, 48), deflate=True),
    "camera raw": camera_raw(scene(64, 48)[..., 0].astype(np.uint16) * 200),
    "jpeg xl": save(PICTURE, "JXL", lossless=True, effort=1),
    "heic": save(PICTURE, "HEIF", quality=90),
}


def reason(data: bytes, policy: DecodePolicy | None = None) -> str:
    with pytest.raises(SampleError) as caught:
        decode_image(data, policy or DecodePolicy())
    assert caught.value.stage == "decode_image"
    assert "\n" not in caught.value.reason
    return caught.value.reason


def outcome(data: bytes) -> np.ndarray | None:
    """The pixels, or None where the file is refused; any other exception fails the test."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            decoded = decode_image(data, DecodePolicy(max_pixels=1_000_000))
    except SampleError as error:
        assert error.stage == "decode_image"
        assert error.reason
        return None
    assert decoded.image.mode == "RGB"
    return np.asarray(decoded.image)


@pytest.mark.parametrize("kind", FILES)
def test_a_truncated_file_never_gives_half_a_picture(kind: str) -> None:
    data = FILES[kind]
    whole = outcome(data)
    assert whole is not None
    cuts = {0, 1, 2, 8, 16, 30, len(data) - 1, *np.linspace(1, len(data) - 1, 60).astype(int)}
    for cut in cuts:
        part = outcome(data[:cut])
        assert part is None or np.array_equal(part, whole), f"cut at {cut} of {len(data)}"
    assert outcome(data[: len(data) // 3]) is None


@pytest.mark.parametrize("kind", FILES)
@settings(max_examples=40, deadline=None)
@given(
    edits=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=6),
    keep=st.one_of(st.just(1.0), st.floats(0, 1)),
)
def test_random_damage_raises_nothing_else(
    kind: str, edits: list[tuple[float, int]], keep: float
) -> None:
    data = bytearray(FILES[kind])
    for where, value in edits:
        # Half of the edits hit the header, where they hurt most.
        span = 64 if value % 2 else len(data)
        data[int(where * min(span, len(data)))] = value
    outcome(bytes(data[: int(len(data) * keep)]))


@settings(max_examples=200, deadline=None)
@given(
    start=st.sampled_from([data[:n] for data in FILES.values() for n in (2, 12, 40)]),
    rest=st.binary(max_size=300),
)
def test_random_bytes_raise_nothing_else(start: bytes, rest: bytes) -> None:
    outcome(start + rest)
    outcome(rest)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty (0 bytes)"),
        (bytes(5000), "zero bytes"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "an HTML page"),
        (b"\n\n  <html>moved</html>", "an HTML page"),
        (b"\xef\xbb\xbf<?xml version='1.0'?><rss/>", "an XML document"),
        (b"\xef\xbb\xbf<?xml version='1.0'?><svg/>", "SVG"),
        (b"%PDF-1.7\n...", "a PDF document"),
        (b"PK\x03\x04" + bytes(30), "a ZIP archive"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "Git LFS pointer"),
        (b'{"error": "denied"}', "a JSON document"),
        (b"\xff\x0a" + bytes(range(40)), "JPEG XL"),
        (b"\x00\x00\x00\x18ftypheic" + bytes(16), "HEIC"),
        (b"a cat on a mat, seen from above\n", "text ('a cat on a mat"),
        (bytes(range(200, 255)), "begins with the bytes c8 c9 ca"),
    ],
)
def test_what_is_no_picture_is_named(data: bytes, words: str) -> None:
    assert words in reason(data)


def test_a_cut_jpeg_is_called_cut_short() -> None:
    assert reason(FILES["jpeg"][:-500]).startswith("JPEG file is cut short")


def test_a_damaged_png_is_called_damaged() -> None:
    data = bytearray(FILES["png"])
    data[data.index(b"IDAT") + 20] ^= 0xFF
    assert reason(bytes(data)).startswith("PNG file is damaged")


@pytest.mark.parametrize("size", [(9460, 9460), (20_000, 20_000), (2_000_000_000, 2)])
def test_oversized_pictures_are_refused_by_their_header(size: tuple[int, int]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text = reason(bomb_png(*size))
    assert f"{size[0]}x{size[1]}" in text
    assert "89,478,485" in text
    assert "--max-pixels" in text


def test_a_picture_at_the_limit_is_read() -> None:
    policy = DecodePolicy(max_pixels=64 * 48)
    assert decode_image(FILES["png"], policy).original_size == (64, 48)
    for kind in FILES:
        assert "64x48" in reason(FILES[kind], DecodePolicy(max_pixels=64 * 48 - 1))


def test_a_higher_limit_is_not_stopped_by_pillows_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for kind in ("jpeg", "png", "16-bit png", "gif", "bmp", "avif", "jpeg 2000"):
            assert decode_image(FILES[kind], DecodePolicy()).original_size == (64, 48)


def test_pillows_own_refusal_is_an_ordinary_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    for kind in ("webp", "tiff", "lzw tiff"):
        assert "larger than Pillow decodes" in reason(FILES[kind])


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.array([[0, 70000]], np.int32), "32-bit integer picture holds values from 0 to 70000"),
        (np.array([[-5, 5]], np.int32), "from -5 to 5"),
        (np.array([[0, 1.5]], np.float32), "float picture holds values from 0 to 1.5"),
        (np.array([[0, np.nan]], np.float32), "nan"),
    ],
)
def test_values_without_a_known_white_are_refused(values: np.ndarray, words: str) -> None:
    assert words in reason(save(Image.fromarray(values.repeat(8, axis=0)), "TIFF"))


def test_a_reason_quotes_no_bytes_that_are_no_text():
    with pytest.raises(SampleError) as caught:
        decode_image(b"P3\n36*\0\x04\xff\x006\x1b[31m 5 255\n" + b"1 2 3 " * 200, DecodePolicy())
    assert "Token too long" in caught.value.reason
    assert caught.value.reason.isprintable()
