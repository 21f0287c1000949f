"""JPEG files: the pixels of Pillow, and no loss of any that is not told."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from harness.colours import ADOBE_TO_SRGB, in_srgb
from harness.picture_files import P3_D50, rgb_profile, save, scene
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from latentcli.core.errors import SampleError
from latentcli.images.codec import DecodedImage, DecodePolicy, decode_image
from latentcli.images.reduction import reduced_size

END = b"\xff\xd9"
PICTURE = Image.fromarray(scene(201, 151))
OPTIONS = {
    "plain": {},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_blocks": 3},
    "full colour": {"subsampling": 0},
    "progressive full colour": {"progressive": True, "subsampling": 0},
    "progressive restarts": {"progressive": True, "restart_marker_blocks": 3},
    "optimised": {"optimize": True},
    "half colour": {"subsampling": 1},
    "RGB as it is": {"keep_rgb": True},
}
FILES = {name: save(PICTURE, "JPEG", quality=90, **more) for name, more in OPTIONS.items()}
FILES["grey"] = save(PICTURE.convert("L"), "JPEG", quality=90)
FILES["progressive grey"] = save(PICTURE.convert("L"), "JPEG", quality=90, progressive=True)
FILES["inks"] = save(PICTURE.convert("CMYK"), "JPEG", quality=90)
# The byte of Adobe's segment that says how colours are coded: 2 is YCCK.
INKS_AT = FILES["inks"].index(b"Adobe") + 11
FILES["luma, chroma and ink"] = FILES["inks"][:INKS_AT] + b"\x02" + FILES["inks"][INKS_AT + 1 :]
FILES["progressive inks"] = save(PICTURE.convert("CMYK"), "JPEG", quality=90, progressive=True)


def decode(data: bytes) -> DecodedImage:
    return decode_image(data, DecodePolicy())


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(decode(data).image)


def reason(data: bytes) -> str:
    with pytest.raises(SampleError) as caught:
        decode(data)
    return caught.value.reason


def scans(data: bytes) -> list[int]:
    """Where the data of each scan begin, and where the last of them end."""
    starts, at = [], 2
    while at < len(data) and data[at : at + 2] != END:
        (size,) = struct.unpack_from(">H", data, at + 2)
        is_scan = data[at + 1] == 0xDA
        at += 2 + size
        if is_scan:
            starts.append(at)
            while data[at] != 0xFF or data[at + 1] in (0, *range(0xD0, 0xD8)):
                at += 1
    return [*starts, at]


@pytest.mark.parametrize("name", FILES)
def test_the_pixels_are_those_of_pillow(name: str) -> None:
    decoded = decode(FILES[name])
    expected = Image.open(io.BytesIO(FILES[name])).convert("RGB")
    assert np.array_equal(np.asarray(decoded.image), np.asarray(expected))
    assert decoded.notes == (("CMYK to RGB without a profile",) if "ink" in name else ())


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "change",
    [
        lambda data: data + b"\x00\x01 appended by a program " * 99,
        lambda data: data + data,
        lambda data: data[:-2],
        lambda data: data[:-2] + b"\xff" * 7 + END,
        lambda data: data[:-2] + END + bytes(512),
    ],
    ids=["trailing bytes", "another picture behind", "no end marker", "filling", "padding"],
)
def test_odd_ends_of_whole_data_are_no_loss(name: str, change) -> None:
    decoded = decode(change(FILES[name]))
    assert np.array_equal(np.asarray(decoded.image), pixels(FILES[name]))
    assert not [note for note in decoded.notes if "damaged" in note]


@pytest.mark.parametrize("end", [b"", END], ids=["cut", "cut and ended"])
@pytest.mark.parametrize("name", FILES)
def test_data_that_end_early_fail(name: str, end: bytes) -> None:
    data, whole = FILES[name], pixels(FILES[name])
    first = scans(data)[0]
    for cut in np.linspace(first, len(data) - 4, 40).astype(int):
        part = data[:cut] + end
        try:
            decoded = decode(part)
        except SampleError as error:
            assert "cut short" in error.reason or "damaged" in error.reason
            continue
        told = [note for note in decoded.notes if "may be damaged" in note]
        assert told or np.array_equal(np.asarray(decoded.image), whole), cut
    assert reason(data[: (first + len(data)) // 2] + end).startswith("JPEG file is cut short")


@pytest.mark.parametrize("end", [b"", END], ids=["cut", "cut and ended"])
@pytest.mark.parametrize("name", [name for name in FILES if "progressive" in name])
def test_missing_scans_fail_or_are_told(name: str, end: bytes) -> None:
    """Cut exactly between two scans, a file is sound to libjpeg."""
    data = FILES[name]
    *starts, _ = scans(data)
    assert len(starts) > 2
    for start in starts[1:]:
        cut = data.rindex(b"\xff\xda", 0, start)
        while (table := data.rfind(b"\xff\xc4", 0, cut)) > 0 and _ends_at(data, table, cut):
            cut = table
        try:
            notes = decode(data[:cut] + end).notes
        except SampleError as error:
            assert "scans are missing" in error.reason
            continue
        assert end
        assert "JPEG data may be damaged: the last bits of some values are missing" in notes


def _ends_at(data: bytes, start: int, end: int) -> bool:
    return start + 2 + struct.unpack_from(">H", data, start + 2)[0] == end


@pytest.mark.parametrize("missing", [1, 2])
def test_colours_in_scans_of_their_own_all_have_to_come(missing: int) -> None:
    data = in_three_scans(scene(64, 48))
    assert np.abs(pixels(data).astype(int) - scene(64, 48)).max() < 25
    *starts, _ = scans(data)
    cut = data.rindex(b"\xff\xda", 0, starts[3 - missing])
    assert "scans are missing" in reason(data[:cut] + END)


def in_three_scans(values: np.ndarray) -> bytes:
    """Three grey files of one size, their scans put into one colour file."""
    channels = Image.fromarray(values).convert("YCbCr").split()
    greys = [save(channel, "JPEG", quality=95) for channel in channels]
    frame = greys[0].index(b"\xff\xc0")
    size = greys[0][frame + 5 : frame + 9]
    parts = [b"\xff\xd8"]
    tables = greys[0][greys[0].index(b"\xff\xdb") : frame]
    parts += [
        tables,
        b"\xff\xc0\x00\x11\x08",
        size,
        b"\x03",
        *(bytes([i, 0x11, 0]) for i in (1, 2, 3)),
    ]
    for number, grey in enumerate(greys, 1):
        start, scan = grey.index(b"\xff\xc4"), grey.index(b"\xff\xda")
        parts += [grey[start:scan], b"\xff\xda\x00\x08\x01", bytes([number, 0, 0, 63, 0])]
        parts.append(grey[scan + 10 : -2])
    return b"".join(parts) + END


@pytest.mark.parametrize("name", ["plain", "progressive", "restarts", "grey", "inks"])
def test_bytes_too_many_are_told(name: str) -> None:
    decoded = decode(FILES[name][:-2] + bytes(range(1, 30)) + END)
    assert np.array_equal(np.asarray(decoded.image), pixels(FILES[name]))
    assert decoded.notes[0].startswith("JPEG data may be damaged: Corrupt JPEG data:")
    assert "extraneous bytes before marker" in decoded.notes[0]


def test_a_lost_piece_inside_is_failed_or_told() -> None:
    """Behind a piece that is gone, the data mean something else and end too early or too late."""
    random = np.random.default_rng(0)
    for name in ("plain", "progressive", "grey", "inks"):
        data = FILES[name]
        first, *_, last = scans(data)
        for _ in range(20):
            start = int(random.integers(first, last - 300))
            try:
                notes = decode(data[:start] + data[start + 200 :]).notes
            except SampleError:
                continue
            assert [note for note in notes if "may be damaged" in note]


def test_a_lost_restart_fails() -> None:
    data = FILES["restarts"]
    first, second = data.index(b"\xff\xd1"), data.index(b"\xff\xd2")
    assert "instead of RST" in reason(data[:first] + data[second:])


def test_nothing_is_appended_to_what_ends_well() -> None:
    """A JPEG in its EXIF thumbnail has an end marker that is not the file's."""
    thumbnail = save(PICTURE.resize((40, 30)), "JPEG")
    data = FILES["plain"]
    inside = data[:2] + b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail + data[2:]
    assert np.array_equal(pixels(inside), pixels(data))
    assert "cut short" in reason(inside[: -len(data) // 2])


def test_a_profile_in_pieces_of_which_one_is_missing_is_told() -> None:
    profile = rgb_profile(P3_D50, "Display P3")
    data = save(PICTURE, "JPEG", quality=90, icc_profile=profile)
    at = data.index(b"ICC_PROFILE\x00") + 12
    lacking = data[: at + 1] + b"\x02" + data[at + 2 :]
    assert decode(data).notes == ("colour profile Display P3 to sRGB",)
    assert decode(lacking).notes == ("colour profile ignored: it is broken",)


@pytest.mark.parametrize("stated", ["R03", "2"])
def test_adobe_rgb_told_by_a_camera(stated: str) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = 2 if stated == "2" else 0xFFFF
    if stated == "R03":
        exif.get_ifd(0x8769)[0xA005] = {1: "R03"}
    flat = np.full((16, 16, 3), (200, 90, 60), np.uint8)
    data = save(Image.fromarray(flat), "JPEG", quality=100, subsampling=0, exif=exif)
    stored = np.asarray(Image.open(io.BytesIO(data)))[8, 8]
    expected = in_srgb((stored / 255) ** (563 / 256), ADOBE_TO_SRGB)
    decoded = decode(data)
    assert np.abs(np.asarray(decoded.image)[8, 8] - expected).max() <= 1
    assert decoded.notes == ("colours of Adobe RGB to sRGB",)
    with_profile = save(
        Image.fromarray(flat), "JPEG", exif=exif, icc_profile=rgb_profile(P3_D50, "Display P3")
    )
    assert decode(with_profile).notes == ("colour profile Display P3 to sRGB",)


@pytest.mark.parametrize("name", ["progressive", "progressive grey", "progressive inks"])
def test_an_error_behind_a_warning_fails(name: str) -> None:
    """The binding passes over such an error: the picture would be what the memory held before."""
    data = FILES[name]
    # In front of the last scan's header: bytes too many, then a table of codes that cannot be.
    at = data.rindex(b"\xff\xda")
    table = b"\xff\xc4\x00\x13\x00" + b"\xff" * 16
    found = reason(data[:at] + b"\x01\x02\x03" + table + data[at:])
    assert "Bogus Huffman table definition" in found


def reduced(data: bytes, factor: int) -> DecodedImage:
    return decode_image(data, DecodePolicy(), lambda size: factor)


WHOLE = {"half colour", "inks", "progressive inks", "luma, chroma and ink"}
"""Files that are decoded whole in any case."""


@pytest.mark.parametrize("factor", [2, 4, 8])
@pytest.mark.parametrize("name", FILES)
def test_a_reduction_is_the_picture_in_fewer_pixels(name: str, factor: int) -> None:
    whole, small = decode(FILES[name]), reduced(FILES[name], factor)
    assert small.original_size == whole.original_size == PICTURE.size
    assert small.notes == whole.notes
    if name in WHOLE:
        assert np.array_equal(small.rgb, whole.rgb)
        return
    assert small.image.size == reduced_size(PICTURE.size, factor)
    inside = [side // factor for side in PICTURE.size]
    box = whole.image.crop((0, 0, *(side * factor for side in inside))).resize(inside, Image.BOX)
    there = np.asarray(small.image)[: inside[1], : inside[0]].astype(int)
    assert np.abs(there - np.asarray(box)).mean() < 2


@pytest.mark.parametrize("turn", range(2, 9))
@pytest.mark.parametrize("size", [(200, 152), (202, 148), (201, 151)])
def test_a_turned_picture_is_reduced_as_far_as_it_divides(size: tuple[int, int], turn: int) -> None:
    """A pixel that is partly outside would become the first, where none is looked for."""
    exif = Image.Exif()
    exif[0x0112] = turn
    data = save(Image.fromarray(scene(*size)), "JPEG", quality=90, exif=exif)
    whole, small = decode(data), reduced(data, 8)
    factor = {200: 8, 202: 2, 201: 1}[size[0]]
    assert whole.notes == small.notes == (f"orientation {turn} applied",)
    assert small.original_size == whole.original_size == whole.image.size
    assert small.image.size == reduced_size(whole.image.size, factor)
    box = np.asarray(whole.image.resize(small.image.size, Image.BOX)).astype(int)
    assert np.abs(np.asarray(small.image) - box).mean() < 2


def test_the_turned_size_is_what_a_reduction_is_asked_for() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    asked = []
    decode_image(
        save(PICTURE, "JPEG", exif=exif), DecodePolicy(), lambda size: asked.append(size) or 1
    )
    assert asked == [(151, 201)]


def outcome(data: bytes, factor: int) -> tuple[str, ...]:
    """What is told of a file: its notes, or why it fails."""
    try:
        return reduced(data, factor).notes
    except SampleError as error:
        return ("failed", error.reason)


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=60, deadline=None)
@given(
    edits=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=6),
    keep=st.one_of(st.just(1.0), st.floats(0, 1)),
    end=st.booleans(),
    factor=st.sampled_from([2, 4, 8]),
)
def test_a_reduction_never_changes_what_fails(
    name: str, edits: list[tuple[float, int]], keep: float, end: bool, factor: int
) -> None:
    data = bytearray(FILES[name])
    for where, value in edits:
        span = 700 if value % 3 == 0 else len(data)
        data[int(where * min(span, len(data)))] = value
    damaged = bytes(data[: int(len(data) * keep)]) + (END if end else b"")
    assert outcome(damaged, factor) == outcome(damaged, 1)
