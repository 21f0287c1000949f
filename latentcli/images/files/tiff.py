"""Reads TIFF files, with their channels interleaved or in planes apart."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2, TiffImageFile

from latentcli.core.errors import SampleError
from latentcli.images.colour_space import SRGB, Colours, from_chromaticities
from latentcli.images.files.stored import (
    Loaded,
    Pixels,
    Stored,
    damage,
    note_frames,
    open_with_pillow,
    pixels_of,
    turn_of,
)
from latentcli.images.files.tiff_planes import Tags, has_planes_apart, merge_planes
from latentcli.images.files.two_bytes import two_bytes
from latentcli.images.tiff_head import first_directory
from latentcli.images.wide import Wide

_WIDTH, _HEIGHT, _BITS, _KIND, _TURN = 256, 257, 258, 262, 274
_WHITE, _CORNERS, _FORMAT, _PROFILE = 318, 319, 339, 34675
_BIG = (b"+\x00", b"\x00+")
_SIGNED = 2
_TURNED = range(2, 9)


def read_tiff(data: bytes) -> Stored:
    """A TIFF file, of which the first page is the picture."""
    if has_planes_apart(first_directory(data)):
        return _read_planes(data)
    opened = open_with_pillow(data, "TIFF")
    assert isinstance(opened, TiffImageFile)

    def load(notes: list[str]) -> Loaded:
        note_frames(opened, notes)
        if (turn := turn_of(opened)) in _TURNED:
            # Pillow turns a TIFF while it loads, and forgets the tag.
            notes.append(f"orientation {turn} applied")
        return Loaded(_pixels(opened, data), _colours(opened.tag_v2))

    return Stored("TIFF", opened.size, load)


def _read_planes(data: bytes) -> Stored:
    """Without Pillow's plugin, which refuses planes that can be read one by one."""
    try:
        tags = _directory(data)
        size = (int(tags[_WIDTH]), int(tags[_HEIGHT]))
    except Exception as error:  # a damaged directory makes Pillow raise almost any kind
        raise SampleError("decode_image", damage("TIFF", error)) from error

    def load(notes: list[str]) -> Loaded:
        if tags.next:
            notes.append("first of several frames")
        return Loaded(merge_planes(tags, data), _colours(tags), tags.get(_TURN, 1))

    return Stored("TIFF", size, load)


def _directory(data: bytes) -> ImageFileDirectory_v2:
    tags = ImageFileDirectory_v2(data[:16] if data[2:4] in _BIG else data[:8])
    file = io.BytesIO(data)
    file.seek(tags.next)
    tags.load(file)
    return tags


def _pixels(opened: TiffImageFile, data: bytes) -> Pixels:
    tags: Tags = opened.tag_v2
    bits, white_is_zero = tags.get(_BITS), tags.get(_KIND) == 0
    if _SIGNED in tags.get(_FORMAT, ()) and bits and max(bits) <= 8:
        raise SampleError(
            "decode_image",
            "TIFF file holds signed 8-bit values, and nothing says which of them is white; convert"
            " it to unsigned ones",
        )
    values = two_bytes(opened, lambda: open_with_pillow(data, "TIFF"))
    if values is not None:
        return Wide(values)
    opened.load()
    pixels = pixels_of(opened)
    if isinstance(pixels, Image.Image):
        return pixels
    grey = pixels.values
    if bits == (12,):
        grey = ((grey.astype(np.uint32) * 65535 + 2047) // 4095).astype(np.uint16)
    return Wide(65535 - grey if white_is_zero else grey, pixels.note)


def _colours(tags: Tags) -> Colours:
    """The profile, or else the primaries with sRGB's curve, which is close to TIFF's gamma 2.2."""
    profile = tags.get(_PROFILE)
    if isinstance(profile, str):  # bytes under the wrong type
        return profile.encode("latin-1", "replace")
    if profile or _CORNERS not in tags:
        return profile
    corners = (*tags.get(_WHITE, SRGB.primaries[:2]), *tags[_CORNERS])
    return from_chromaticities(tuple(map(float, corners)), "sRGB")
