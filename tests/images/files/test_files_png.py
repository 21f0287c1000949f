"""PNG files: no text or profile refuses them, and their colours are read by their rank."""

from __future__ import annotations

import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from harness.colours import ADOBE_TO_SRGB, BT2020_TO_SRGB, P3_TO_SRGB, in_srgb, srgb_linear
from harness.picture_files import P3_D50, SRGB_D50, png, rgb_profile, scene
from hypothesis import given, settings
from hypothesis import strategies as st

from latentcli.core.errors import SampleError
from latentcli.images.codec import DecodedImage, DecodePolicy, decode_image

P3, BT2020, SRGB = 12, 9, 1
ADOBE = (31270, 32900, 64000, 33000, 21000, 71000, 15000, 6000)
SRGB_CORNERS = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)


def decode(data: bytes) -> DecodedImage:
    return decode_image(data, DecodePolicy())


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(decode(data).image)


def reason(data: bytes) -> str:
    with pytest.raises(SampleError) as caught:
        decode(data)
    return caught.value.reason


def with_chunks(*chunks: tuple[bytes, bytes], values: np.ndarray | None = None) -> bytes:
    return png(scene() if values is None else values, 2, 8, *chunks)


def cicp(primaries: int, transfer: int, matrix: int = 0, full: int = 1) -> tuple[bytes, bytes]:
    return b"cICP", bytes([primaries, transfer, matrix, full])


def gama(gamma: float) -> tuple[bytes, bytes]:
    return b"gAMA", struct.pack(">I", round(gamma * 100_000))


def chrm(corners: tuple[int, ...]) -> tuple[bytes, bytes]:
    return b"cHRM", struct.pack(">8I", *corners)


def iccp(profile: bytes) -> tuple[bytes, bytes]:
    return b"iCCP", b"name\x00\x00" + zlib.compress(profile)


SWAPPED = iccp(rgb_profile(SRGB_D50[:, [2, 1, 0]], "Swapped"))
MIB = 2**20
TEXTS = {
    "packed": [(b"zTXt", b"Comment\x00\x00" + zlib.compress(bytes(2 * MIB)))],
    "packed and international": [
        (b"iTXt", b"Comment\x00\x01\x00\x00\x00" + zlib.compress(b"x" * 2 * MIB))
    ],
    "plain": [(b"tEXt", b"Comment\x00" + b"x" * 65 * MIB)],
    "packed XMP": [
        (b"iTXt", b"XML:com.adobe.xmp\x00\x01\x00\x00\x00" + zlib.compress(b"x" * 2 * MIB))
    ],
    "packed EXIF": [(b"zTXt", b"Raw profile type exif\x00\x00" + zlib.compress(b"x" * 2 * MIB))],
    "many": [(b"tEXt", b"Comment\x00text")] * 3000,
    "many that unpack to a megabyte": [
        (b"zTXt", b"Comment\x00\x00" + zlib.compress(bytes(MIB - 1)))
    ]
    * 100,
    "many XMP": [
        (b"iTXt", b"XML:com.adobe.xmp\x00\x01\x00\x00\x00" + zlib.compress(b"x" * (MIB - 9)))
    ]
    * 100,
    "broken": [(b"zTXt", b"Comment\x00\x07rubbish"), (b"tEXt", b"\xff\x00"), (b"iTXt", b"")],
    "unknown": [(b"prVt", bytes(MIB)), (b"sPLT", b"rubbish"), (b"tIME", b"")],
}


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("place", ["before", "behind"])
def test_no_text_refuses_a_picture(kind: str, place: str) -> None:
    data = with_chunks(*TEXTS[kind])
    if place == "behind":
        plain, end = with_chunks(), 12
        start = 8 + 25
        data = plain[:-end] + data[start : start + len(data) - len(plain)] + plain[-end:]
    decoded = decode(data)
    assert np.array_equal(np.asarray(decoded.image), scene())
    assert decoded.notes == ()


def test_texts_are_not_unpacked() -> None:
    bomb = zlib.compress(bytes(96 * MIB))
    chunks = [
        (b"zTXt", b"Comment\x00\x00" + bomb),
        (b"iTXt", b"XML:com.adobe.xmp\x00\x01\x00\x00\x00" + bomb),
    ]
    chunks.append((b"iCCP", b"name\x00\x00" + bomb))
    data = with_chunks(*chunks)
    tracemalloc.start()
    try:
        notes = decode(data).notes
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 48 * MIB
    assert notes == ("colour profile ignored: it is broken or larger than 16 MiB",)


def test_a_large_profile_is_read() -> None:
    profile = rgb_profile(SRGB_D50[:, [2, 1, 0]], "Swapped")
    large = struct.pack(">I", len(profile) + 3 * MIB) + profile[4:] + bytes(3 * MIB)
    assert np.array_equal(pixels(with_chunks(iccp(large))), pixels(with_chunks(SWAPPED)))
    assert np.abs(pixels(with_chunks(SWAPPED)).astype(int) - scene()[..., ::-1]).max() <= 2


@pytest.mark.parametrize(
    "chunk",
    [
        (b"eXIf", b"MM\x00*" + struct.pack(">IHHHIHHI", 8, 1, 0x112, 3, 1, 6, 0, 0)),
        (b"iTXt", b"XML:com.adobe.xmp\x00\x00\x00\x00\x00" + b'<x tiff:Orientation="6"/>'),
        (
            b"iTXt",
            b"XML:com.adobe.xmp\x00\x01\x00\x00\x00" + zlib.compress(b'<x tiff:Orientation="6"/>'),
        ),
    ],
    ids=["eXIf", "XMP", "packed XMP"],
)
def test_orientation_is_still_read(chunk: tuple[bytes, bytes]) -> None:
    decoded = decode(with_chunks(*TEXTS["packed"], chunk))
    assert np.array_equal(np.asarray(decoded.image), np.rot90(scene(), -1))
    assert decoded.notes == ("orientation 6 applied",)


def test_a_damaged_text_costs_nothing_and_damaged_colours_are_no_colours() -> None:
    data = with_chunks((b"tEXt", b"Comment\x00some text"), gama(1.0))
    at = data.index(b"some text")
    assert decode(data[:at] + b"S" + data[at + 1 :]).notes == decode(data).notes
    at = data.index(b"gAMA") + 7
    assert np.array_equal(pixels(data[:at] + b"\x99" + data[at + 1 :]), scene())


def test_display_p3_told_by_cicp() -> None:
    decoded = decode(with_chunks(cicp(P3, 13)))
    expected = in_srgb(srgb_linear(scene() / 255), P3_TO_SRGB)
    assert np.abs(np.asarray(decoded.image) - expected).max() < 1
    assert np.abs(scene() - expected).max() > 20
    assert decoded.notes == ("colours of Display P3 to sRGB",)


@pytest.mark.parametrize("transfer", [1, 6, 13, 14, 15])
def test_bt2020_told_by_cicp(transfer: int) -> None:
    decoded = decode(with_chunks(cicp(BT2020, transfer)))
    expected = in_srgb(srgb_linear(scene() / 255), BT2020_TO_SRGB)
    assert np.abs(np.asarray(decoded.image) - expected).max() < 1
    told = () if transfer == 13 else ("the curve of BT.709 read as that of sRGB",)
    name = "BT.2020" if transfer == 13 else "BT.2020 with BT.709"
    assert decoded.notes == (*told, f"colours of {name} to sRGB")


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
@pytest.mark.parametrize("primaries", [SRGB, BT2020])
def test_hdr_is_refused_by_name(primaries: int, transfer: int, name: str) -> None:
    assert f"its colours are {name} (HDR)" in reason(with_chunks(cicp(primaries, transfer)))
    assert "convert it to sRGB" in reason(with_chunks(cicp(primaries, transfer)))


def test_hdr_in_a_profile_is_refused() -> None:
    """By the profile's own cicp tag, as ICC.1:2022 has it."""
    profile = bytearray(rgb_profile(P3_D50, "Rec. 2100 PQ"))
    at = profile.index(b"cprt")  # a tag that no one misses
    start = int.from_bytes(profile[at + 4 : at + 8], "big")
    profile[at : at + 4] = b"cicp"
    profile[start : start + 12] = b"cicp" + bytes([0, 0, 0, 0, 9, 16, 0, 1])
    assert "PQ (HDR)" in reason(with_chunks(iccp(bytes(profile))))


@pytest.mark.parametrize("code", [(0, 13), (3, 13), (1, 0), (1, 3), (200, 200)])
def test_reserved_codes_are_refused(code: tuple[int, int]) -> None:
    assert f"the H.273 codes {code[0]} and {code[1]}, and" in reason(with_chunks(cicp(*code)))


def test_linear_light_told_by_cicp() -> None:
    decoded = decode(with_chunks(cicp(SRGB, 8)))
    assert np.abs(np.asarray(decoded.image) - in_srgb(scene() / 255)).max() < 1
    assert decoded.notes == ("colours of BT.709 with linear light to sRGB",)


def test_linear_light_of_16_bits_keeps_dark_tones() -> None:
    wide = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    rgb = np.stack([wide, wide // 2, wide // 300], axis=-1)
    decoded = decode(png(rgb, 2, 16, gama(1.0)))
    assert np.abs(np.asarray(decoded.image) - in_srgb(rgb / 65535)).max() < 1
    assert decoded.notes == (
        "16-bit values to 8-bit",
        "colours of BT.709 with linear light to sRGB",
    )
    grey = pixels(png(wide, 0, 16, gama(1.0)))
    assert np.abs(grey - in_srgb(np.stack([wide] * 3, axis=-1) / 65535)).max() < 1
    both = np.stack([wide, np.full_like(wide, 65535)], axis=-1)
    assert np.array_equal(pixels(png(both, 4, 16, gama(1.0))), grey)


def test_display_p3_of_16_bits() -> None:
    wide = scene().astype(np.uint16) * 257 + 100
    expected = in_srgb(srgb_linear(wide / 65535), P3_TO_SRGB)
    assert np.abs(pixels(png(wide, 2, 16, cicp(P3, 13))) - expected).max() < 1


def test_narrow_range_of_cicp() -> None:
    levels = (16 + scene() / 255 * 219).round().astype(np.uint8)
    result = pixels(with_chunks(cicp(SRGB, 13, full=0), values=levels))
    assert np.abs(result - (levels.astype(float) - 16) * 255 / 219).max() < 1
    wide = (4096 + scene() / 255 * 219 * 256).round().astype(np.uint16)
    assert np.abs(pixels(png(wide, 2, 16, cicp(SRGB, 13, full=0))) - scene().astype(int)).max() < 1


@pytest.mark.parametrize("gamma", [0.55556, 0.35, 0.6, 1.0])
def test_gamma(gamma: float) -> None:
    decoded = decode(with_chunks(gama(gamma)))
    assert np.abs(np.asarray(decoded.image) - in_srgb((scene() / 255) ** (1 / gamma))).max() < 1
    assert len(decoded.notes) == 1
    assert "gamma" in decoded.notes[0] or "linear light" in decoded.notes[0]


@pytest.mark.parametrize("gamma", [0.45455, 0.4545, 0.46])
@pytest.mark.parametrize("more", [(), (chrm(SRGB_CORNERS),)], ids=["alone", "with cHRM"])
def test_the_gamma_that_stands_for_srgb_changes_nothing(gamma: float, more) -> None:
    decoded = decode(with_chunks(gama(gamma), *more))
    assert np.array_equal(np.asarray(decoded.image), scene())
    assert decoded.notes == ()


@pytest.mark.parametrize("gamma", [0.45455, 0.6])
def test_primaries_like_those_of_adobe(gamma: float) -> None:
    decoded = decode(with_chunks(gama(gamma), chrm(ADOBE)))
    linear = srgb_linear(scene() / 255) if gamma < 0.5 else (scene() / 255) ** (1 / gamma)
    assert np.abs(np.asarray(decoded.image) - in_srgb(linear, ADOBE_TO_SRGB)).max() < 1
    assert decoded.notes[0].startswith("colours of its own primaries")


def test_chrm_alone_has_the_curve_of_srgb() -> None:
    expected = in_srgb(srgb_linear(scene() / 255), ADOBE_TO_SRGB)
    assert np.abs(pixels(with_chunks(chrm(ADOBE))) - expected).max() < 1


def test_another_white_stays_white() -> None:
    corners = (34567, 35850, *ADOBE[2:])
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    result = pixels(with_chunks(chrm(corners), values=np.stack([grey] * 3, axis=-1)))
    assert np.abs(result.astype(int) - grey[..., None]).max() <= 1


@pytest.mark.parametrize(
    ("chunks", "told"),
    [
        ((gama(0),), "gAMA ignored: 0 is not a valid gamma"),
        ((gama(40000),), "gAMA ignored"),
        ((chrm((0,) * 8),), "cHRM ignored: it spans no colours"),
        ((chrm((31270, 32900, *(30000, 60000) * 3)),), "cHRM ignored"),
        (((b"cHRM", b"short"),), "cHRM ignored"),
        (((b"cICP", b"\x0c"),), "cICP ignored: it is broken"),
        ((cicp(P3, 13, matrix=9),), "cICP ignored: it is broken"),
        (((b"iCCP", b"name\x00\x00rubbish"),), "colour profile ignored: it is broken"),
    ],
)
def test_broken_colours_are_ignored_with_a_note(chunks, told: str) -> None:
    decoded = decode(with_chunks(*chunks))
    assert np.array_equal(np.asarray(decoded.image), scene())
    assert told in decoded.notes[0]


RANKED = [cicp(P3, 13), SWAPPED, (b"sRGB", b"\x00"), (gama(1.0), chrm(ADOBE))]


@pytest.mark.parametrize("rank", range(4))
def test_the_first_of_the_ranked_chunks_counts(rank: int) -> None:
    """PNG, third edition, 4.3: cICP, then iCCP, then sRGB, then gAMA and cHRM."""

    def flat(of) -> list:
        return [chunk for row in of for chunk in ([row] if isinstance(row[0], bytes) else row)]

    only = decode(with_chunks(*flat(RANKED[rank : rank + 1])))
    for order in (1, -1):
        both = decode(with_chunks(*flat(RANKED[rank:])[::order]))
        assert np.array_equal(np.asarray(both.image), np.asarray(only.image))
        assert both.notes == only.notes


def test_a_palette_and_a_transparent_colour_are_converted_too() -> None:
    palette = (b"PLTE", bytes([220, 40, 30, 30, 200, 60]))
    indices = np.array([[0, 1], [1, 0]], np.uint8)
    result = pixels(png(indices, 3, 8, cicp(P3, 13), palette))
    expected = in_srgb(srgb_linear(np.array([220, 40, 30]) / 255), P3_TO_SRGB)
    assert np.abs(result[0, 0] - expected).max() < 1
    key = (b"tRNS", struct.pack(">3H", 220, 40, 30))
    flat = np.array([[[220, 40, 30], [220, 40, 31]]], np.uint8)
    result = pixels(png(flat, 2, 8, cicp(P3, 13), key))
    assert result[0, 0].tolist() == [255, 255, 255]
    assert np.abs(result[0, 1] - expected).max() < 2


@settings(max_examples=60, deadline=None)
@given(
    chunks=st.lists(
        st.tuples(
            st.sampled_from(
                [b"cICP", b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"zTXt", b"iTXt", b"eXIf"]
            ),
            st.binary(max_size=40),
        ),
        max_size=4,
    )
)
def test_whatever_the_chunks_hold_a_picture_or_a_reason_comes(chunks) -> None:
    try:
        assert decode(with_chunks(*chunks)).image.size == (96, 64)
    except SampleError as error:
        assert "its colours" in error.reason
