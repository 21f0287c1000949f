"""Any bytes give a TIFF file's tags, or none."""

from __future__ import annotations

import struct

from harness.picture_files import save, scene
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from latentcli.images.formats import picture_by_bytes
from latentcli.images.tiff_head import MAGIC, first_directory

WIDTH, HEIGHT = 256, 257


def test_both_orders_and_big_files() -> None:
    for options in ({}, {"big_endian": True}, {"big_tiff": True}):
        tags = first_directory(save(Image.fromarray(scene()), "TIFF", **options))
        assert (tags[WIDTH], tags[HEIGHT]) == (96, 64)


def test_what_is_cut_or_no_tiff_has_no_tags() -> None:
    data = save(Image.fromarray(scene()), "TIFF")
    assert first_directory(data[:40]) == {}
    assert first_directory(b"") == {}


@given(start=st.sampled_from(MAGIC), rest=st.binary(max_size=60))
@example(start=b"II*\x00", rest=b"ftyp")
@example(start=b"II+\x00", rest=struct.pack("<IQ", 8, 2**64 - 1))
@example(start=b"MM\x00+", rest=struct.pack(">IQQ", 8, 16, 2**64 - 1))
@example(start=b"II*\x00", rest=struct.pack("<IHHHI4s", 8, 1, 256, 16, 1, b"long"))
def test_any_bytes(start: bytes, rest: bytes) -> None:
    assert isinstance(first_directory(start + rest), dict)
    assert picture_by_bytes(start + rest) in (".tif", ".dng")
