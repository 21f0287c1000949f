"""Pictures are told by their suffix and by their first bytes, without reading them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from harness.picture_files import save, scene
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from latentcli.images import formats
from latentcli.images.formats import (
    EXTRAS,
    FORMATS,
    HEAD_BYTES,
    IMAGE_SUFFIXES,
    format_of,
    picture_by_bytes,
    readable_suffixes,
)

WRITTEN = {
    "JPEG": ".jpg",
    "PNG": ".png",
    "WEBP": ".webp",
    "AVIF": ".avif",
    "GIF": ".gif",
    "BMP": ".bmp",
    "TIFF": ".tif",
    "JPEG2000": ".jp2",
    "PPM": ".ppm",
    "ICO": ".ico",
    "DDS": ".dds",
    "ICNS": ".ico",
}

HEADS = {
    b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic": ".heic",
    b"\x00\x00\x00\x1cftypmif1\x00\x00\x00\x00mif1avifmiaf": ".avif",
    b"\x00\x00\x00\x18ftypmsf1\x00\x00\x00\x00msf1hevc": ".heic",
    b"\x00\x00\x00\x18ftypcrx \x00\x00\x00\x01crx isom": ".dng",
    b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isomavc1": None,
    b"\x00\x00\x00\x14ftypqt  \x20\x05\x03\x00qt  ": None,
    b"\xff\x0a\xfa\x7f\x01": ".jxl",
    b"\x00\x00\x00\x0cJXL \r\n\x87\n": ".jxl",
    b"\xff\x4f\xff\x51\x00\x2f": ".jp2",
    b"II*\x00\x10\x00\x00\x00CR\x02\x00": ".dng",
    b"FUJIFILMCCD-RAW 0201FF383501": ".dng",
    b"IIU\x00\x18\x00\x00\x00": ".dng",
    b"IIRO\x08\x00\x00\x00": ".dng",
    b"P6\n# made by hand\n3 2\n255\n": ".ppm",
    b"<?xml version='1.0'?>\n<!DOCTYPE svg>\n<svg xmlns=''/>": ".svg",
    b"<svg width='3'/>": ".svg",
    b"8BPS\x00\x01": ".psd",
    b"\x76\x2f\x31\x01\x02": ".exr",
    b"#?RADIANCE\n": ".hdr",
    b"gimp xcf v011": ".xcf",
    b"%!PS-Adobe-3.0 EPSF-3.0": ".ai",
    b"": None,
    b"BMW is a car": None,
    b"P4ssword 1": None,
    b"<!DOCTYPE html><html><body><svg/></body>": None,
    b"%PDF-1.7": None,
    b"RIFF\x00\x00\x00\x00WAVEfmt ": None,
    b"\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00": None,
    bytes(64): None,
}


@pytest.mark.parametrize("format", WRITTEN)
def test_what_pillow_writes_is_told_by_its_first_bytes(format: str) -> None:
    data = save(Image.fromarray(scene(64, 64)), format)
    assert picture_by_bytes(data[:HEAD_BYTES]) == WRITTEN[format]


@pytest.mark.parametrize("head", HEADS)
def test_heads(head: bytes) -> None:
    assert picture_by_bytes(head) == HEADS[head]


@pytest.mark.parametrize(
    "tags", [{50706: b"\x01\x04\x00\x00"}, {262: 32803}, {254: 1, 330: 4000}], ids=str
)
@pytest.mark.parametrize("big_endian", [False, True])
def test_a_camera_file_is_no_plain_tiff(tags: dict[int, object], big_endian: bool) -> None:
    """Whose first directory holds a preview, which must not be taken for the picture."""
    plain = save(Image.fromarray(scene()), "TIFF", big_endian=big_endian)
    raw = save(Image.fromarray(scene()), "TIFF", tiffinfo=tags, big_endian=big_endian)
    assert picture_by_bytes(plain) == ".tif"
    assert picture_by_bytes(raw) == ".dng"
    assert picture_by_bytes(raw[:40]) == ".tif"


@given(start=st.sampled_from([b"", *(head[:12] for head in HEADS)]), rest=st.binary(max_size=200))
def test_any_bytes_are_a_format_or_none(start: bytes, rest: bytes) -> None:
    suffix = picture_by_bytes(start + rest)
    assert suffix is None or format_of(suffix) is not None


def test_each_suffix_has_one_format() -> None:
    suffixes = [suffix for row in FORMATS for suffix in row.suffixes]
    assert len(suffixes) == len(set(suffixes))
    assert all(suffix[0] == "." and suffix == suffix.lower() for suffix in suffixes)
    assert {row.reader for row in FORMATS} == {"always", "never", *EXTRAS}
    assert {suffix for suffix in HEADS.values() if suffix} <= set(suffixes)


def test_suffixes_name_their_format() -> None:
    heic, svg = format_of(".HEIC"), format_of(".svg")
    assert heic is not None
    assert (heic.name, heic.suffix, heic.reader) == ("HEIC", ".heic", "heif")
    assert svg is not None
    assert (svg.reader, svg.is_read) == ("never", False)
    assert format_of(".txt") is None
    assert {".jpg", ".png", ".mpo"} <= IMAGE_SUFFIXES
    assert ".heic" not in IMAGE_SUFFIXES


def test_what_is_read_depends_on_the_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    assert readable_suffixes() >= IMAGE_SUFFIXES | {".heic", ".jxl", ".cr2"}
    for module in EXTRAS.values():
        monkeypatch.setitem(sys.modules, module, None)
    assert readable_suffixes() == IMAGE_SUFFIXES


def test_asking_loads_nothing_heavy() -> None:
    code = (
        "import sys; from latentcli.images.formats import readable_suffixes, picture_by_bytes;"
        "readable_suffixes(); picture_by_bytes(b'II*'); print(*sys.modules)"
    )
    root = Path(formats.__file__).parents[2]
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    loaded = {name.partition(".")[0] for name in ran.stdout.split()}
    assert not loaded & {"PIL", "numpy", "torch", *EXTRAS.values()}


def test_the_page_names_every_suffix_that_is_read() -> None:
    page = (Path(formats.__file__).parents[2] / "docs" / "guides" / "pictures.md").read_text(
        encoding="utf-8"
    )
    for row in FORMATS:
        shown = row.suffixes if row.reader != "raw" else (".dng", ".cr2", ".cr3", ".nef")
        if row.reader != "never":
            assert not [suffix for suffix in shown if f"`{suffix}`" not in page]
    assert all(f"latentcli[{extra}]" in page for extra in EXTRAS)
